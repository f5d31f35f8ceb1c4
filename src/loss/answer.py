"""The objective of speech LLMs: what the language model's answer should have been."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class AnswerObjective(nn.Module):
    """Minus log P of the answer's tokens and of its end; nothing of the prompt is scored.

    Returns sums and the number of tokens and ends as their normaliser. A clip without a frame heard nothing: its loss
    counts as zero, and it is marked. A projector's auxiliary mean is weighted with the normaliser, so that it counts as
    much in every step.

    Example:
        >>> objective = AnswerObjective()
        >>> log_probs = torch.tensor([[0.5, 0.25, 1.0]]).log()  # of two tokens and the end
        >>> right = torch.tensor([[True, False, True]])
        >>> losses = objective(log_probs, right, torch.tensor([9]), torch.tensor([2]))
        >>> round(float(losses["loss_sum"] / losses["normalizer"]), 4)  # log 8, for two tokens and the end
        0.6931
    """

    why_too_short = "too short: it makes no projected frame"

    def forward(
        self,
        answer_log_probs: Tensor,
        answer_right: Tensor,
        projected_lengths: Tensor,
        token_lengths: Tensor,
        auxiliary: Tensor | None = None,
        **batch,
    ) -> dict:
        """answer_log_probs and answer_right [B, U + 1], projected_lengths [B], token_lengths [B], auxiliary [].

        Returns ``loss_sum``, ``normalizer``, ``parts`` and ``too_short`` as ``CTCObjective`` does, and in ``measures``
        how many tokens and ends were the most probable ones (``accuracy``).
        """
        too_short = projected_lengths == 0
        heard = ~too_short[:, None]
        answer = -torch.where(heard, answer_log_probs, 0.0).sum()
        normalizer = ((token_lengths + 1) * ~too_short).sum()
        parts = {"answer": answer}
        if auxiliary is not None:
            parts["auxiliary"] = auxiliary * normalizer
        return {
            "loss_sum": sum(parts.values()),
            "normalizer": normalizer,
            "parts": {name: part.detach() for name, part in parts.items()},
            "measures": {"accuracy": (answer_right & heard).sum()},
            "too_short": too_short,
        }
