"""Consistency-regularised CTC (Yao et al., arXiv 2410.05101): two masked views of a clip shall agree."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from src.loss.ctc import CTCObjective
from src.utils.build import Weight, check
from src.utils.masks import valid_positions


class ConsistentCTCObjective(CTCObjective):
    """The mean CTC loss of two views of each clip, plus how far apart their frame posteriors are (paper, eq. 2-4).

    The training step masks each clip twice (``views``) and hands over both halves of one batch. Each view is
    drawn towards the other one as that stands (no gradient through the target). It pays on little data, wants
    about 2.5 times the time masks that CTC alone wants, and takes twice the time and memory a step. In eval mode
    it is ``CTCObjective``.

    Args:
        weight: of the distance, the sum over frames of the symmetric Kullback-Leibler divergence (paper: 0.2).
        blank: the blank's token id.

    Raises ``UserError`` for a weight below 0.
    """

    views = 2

    def __init__(self, weight: float = 0.2, blank: int = 0) -> None:
        super().__init__(blank)
        check("weight", weight, Weight)
        self.weight = weight

    def forward(
        self,
        log_probs: Tensor,
        log_prob_lengths: Tensor,
        tokens: Tensor,
        token_lengths: Tensor,
        **batch,
    ) -> dict:
        """As ``CTCObjective``; in training log_probs [2B, T, V] and all else hold view one, then view two."""
        losses = super().forward(log_probs, log_prob_lengths, tokens, token_lengths)
        if not self.training:
            return losses
        one, two = log_probs.float().chunk(2)
        valid = valid_positions(log_prob_lengths.chunk(2)[0], one.size(1)).unsqueeze(-1)
        apart = F.kl_div(one, two.detach(), reduction="none", log_target=True)
        apart = apart + F.kl_div(two, one.detach(), reduction="none", log_target=True)
        apart = 0.5 * apart.masked_fill(~valid, 0.0).sum()
        ctc = losses["loss_sum"] / 2
        return {
            "loss_sum": ctc + self.weight * apart,
            "normalizer": losses["normalizer"] // 2,
            "parts": {"ctc": ctc.detach(), "consistency": self.weight * apart.detach()},
            "too_short": losses["too_short"].chunk(2)[0],
        }
