"""The transducer objective, summed, with CTC on the encoder beside it where the model has such a layer."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from src.loss.ctc import AuxiliaryCTC
from src.loss.fused_transducer import fused_transducer_loss


class TransducerObjective(nn.Module):
    """Negative log likelihood over all alignments of the transducer's lattice, plus ``ctc_weight`` times CTC's.

    Returns sums and the number of target tokens as their normaliser. A clip without a frame has no path: its loss
    counts as zero, and it is marked.

    Args:
        ctc_weight: of CTC on the encoder (``ctc: true`` in the model); 0: none.
        blank: the blank's token id.

    Raises ``UserError`` for a weight below 0, or one above 0 with a model that has no CTC layer.
    """

    def __init__(self, ctc_weight: float = 0.3, blank: int = 0) -> None:
        super().__init__()
        self.blank = blank
        self.ctc = AuxiliaryCTC(ctc_weight, blank)

    def forward(
        self,
        joint_encoded: Tensor,
        joint_predicted: Tensor,
        joint_weight: Tensor,
        joint_bias: Tensor,
        encoded_lengths: Tensor,
        tokens: Tensor,
        token_lengths: Tensor,
        log_probs: Tensor | None = None,
        log_prob_lengths: Tensor | None = None,
        **batch,
    ) -> dict:
        """joint_encoded [B, T, H], joint_predicted [B, U + 1, H], joint_weight [V, H], joint_bias [V],
        encoded_lengths [B], tokens [B, U], token_lengths [B]; for CTC log_probs [B, T, V], log_prob_lengths [B].

        Returns ``loss_sum``, ``normalizer``, ``parts`` and ``too_short`` as ``CTCObjective`` does.
        """
        losses = fused_transducer_loss(
            joint_encoded,
            joint_predicted,
            joint_weight,
            joint_bias,
            tokens,
            encoded_lengths,
            token_lengths,
            self.blank,
            reduction="none",
        )
        too_short = encoded_lengths == 0
        transducer = torch.where(too_short, 0.0, losses).sum()
        ctc, part = self.ctc(log_probs, log_prob_lengths, tokens, token_lengths)
        return {
            "loss_sum": transducer + ctc,
            "normalizer": (token_lengths * ~too_short).sum(),
            "parts": {"transducer": transducer.detach(), **part},
            "too_short": too_short,
        }
