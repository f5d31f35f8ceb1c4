"""The objective of language models: the cross-entropy of every next token."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from src.utils.masks import valid_positions


def next_token_losses(log_probs: Tensor, tokens: Tensor, token_lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Minus log P of every token of a text and of its end, token 0.

    log_probs [B, U + 1, V], tokens [B, U], token_lengths [B] -> losses [B, U + 1], and which of them are of a token or
    an end [B, U + 1].

    >>> log_probs = torch.full((1, 3, 4), 0.25).log()
    >>> losses, scored = next_token_losses(log_probs, torch.tensor([[2, 3]]), torch.tensor([1]))
    >>> losses.exp().tolist(), scored.tolist()
    ([[4.0, 4.0, 4.0]], [[True, True, False]])
    """
    U = tokens.size(1)
    targets = F.pad(tokens.masked_fill(~valid_positions(token_lengths, U), 0), (0, 1))
    losses = F.nll_loss(log_probs.transpose(1, 2), targets, reduction="none")
    return losses, valid_positions(token_lengths + 1, U + 1)


class NextTokenObjective(nn.Module):
    """Minus log P of the tokens and of the end, token 0. Sums and a normaliser, so that any batching is the same.

    Example:
        >>> log_probs = torch.full((1, 3, 4), 0.25).log()
        >>> losses = NextTokenObjective()(log_probs, torch.tensor([[2, 3]]), torch.tensor([2]))
        >>> float(losses["loss_sum"] / losses["normalizer"]), int(losses["normalizer"])  # log 4, two tokens and the end
        (1.3862943649291992, 3)
    """

    def forward(self, log_probs: Tensor, tokens: Tensor, token_lengths: Tensor, **batch) -> dict:
        """log_probs [B, U + 1, V], tokens [B, U], token_lengths [B] -> ``loss_sum``, ``normalizer``, ``parts``."""
        losses, scored = next_token_losses(log_probs, tokens, token_lengths)
        loss_sum = losses.masked_fill(~scored, 0.0).sum()
        return {
            "loss_sum": loss_sum,
            "normalizer": (token_lengths + 1).sum(),
            "parts": {"next_token": loss_sum.detach()},
            "too_short": torch.zeros_like(token_lengths, dtype=torch.bool),
        }
