"""The objective of attention models: cross-entropy of every next token, smoothed, with CTC on the encoder beside it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from src.loss.ctc import AuxiliaryCTC
from src.loss.next_token import next_token_losses
from src.utils.build import PartOfOne, check


class AttentionObjective(nn.Module):
    """(1 - w) times minus log P of the tokens and of the end, token 0, plus w times CTC (arXiv 1609.06773, eq. 8).

    Returns sums and the number of tokens and ends as their normaliser. A clip without a frame heard nothing: its loss
    counts as zero, and it is marked. What evaluation reports is not smoothed.

    Args:
        ctc_weight: w, of CTC on the encoder (``ctc: true`` in the model); 0: none.
        label_smoothing: share of each target that is spread over all tokens alike (arXiv 1512.00567, sec. 7).

    Raises ``UserError`` for numbers outside [0, 1), or a weight above 0 with a model that has no CTC layer.

    Example:
        >>> objective = AttentionObjective(ctc_weight=0).eval()
        >>> log_probs = torch.full((1, 3, 4), 0.25).log()
        >>> losses = objective(log_probs, torch.tensor([9]), torch.tensor([[2, 3]]), torch.tensor([2]))
        >>> round(float(losses["loss_sum"] / losses["normalizer"]), 4)  # log 4, for two tokens and the end
        1.3863
    """

    def __init__(self, ctc_weight: float = 0.3, label_smoothing: float = 0.1) -> None:
        super().__init__()
        for name, value in (("ctc_weight", ctc_weight), ("label_smoothing", label_smoothing)):
            check(name, value, PartOfOne)
        self.label_smoothing = label_smoothing
        self.ctc = AuxiliaryCTC(ctc_weight)

    def forward(
        self,
        next_log_probs: Tensor,
        encoded_lengths: Tensor,
        tokens: Tensor,
        token_lengths: Tensor,
        log_probs: Tensor | None = None,
        log_prob_lengths: Tensor | None = None,
        **batch,
    ) -> dict:
        """next_log_probs [B, U + 1, V], encoded_lengths [B], tokens [B, U], token_lengths [B]; for CTC log_probs
        [B, T, V], log_prob_lengths [B].

        Returns ``loss_sum``, ``normalizer``, ``parts`` and ``too_short`` as ``CTCObjective`` does.
        """
        too_short = encoded_lengths == 0
        losses, scored = next_token_losses(next_log_probs, tokens, token_lengths)
        scored = scored & ~too_short[:, None]
        if self.training:
            losses = torch.lerp(losses, -next_log_probs.mean(-1), self.label_smoothing)
        attention = (1 - self.ctc.weight) * torch.where(scored, losses, 0.0).sum()
        ctc, part = self.ctc(log_probs, log_prob_lengths, tokens, token_lengths)
        return {
            "loss_sum": attention + ctc,
            "normalizer": ((token_lengths + 1) * ~too_short).sum(),
            "parts": {"attention": attention.detach(), **part},
            "too_short": too_short,
        }
