"""The objective of Paraformer: cross-entropy of every slot, how many there are, and CTC on the encoder."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from src.loss.ctc import AuxiliaryCTC
from src.utils.build import PartOfOne, Weight, check
from src.utils.masks import valid_positions


class ParaformerObjective(nn.Module):
    """w CTC + (1 - w) cross-entropy + |counted - U|, summed (arXiv 2206.08317, eq. 8, with CTC beside it).

    Besides the loss it measures, for nobody to minimise, how many tokens the first pass has right, which saw nothing of
    the target but its length. Of a first pass that saw its alignment, too, nothing is measured. Of a model without a
    predictor there are no slots: it is CTC alone, as ``CTCObjective`` has it.

    Args:
        ctc_weight: w; 0: no CTC.
        quantity_weight: of |counted - U|, for predictors that count.
        label_smoothing: share of each target that is spread over all tokens alike, in training.

    Raises ``UserError`` for numbers out of range, or a CTC weight above 0 with a model that has no CTC layer.
    """

    def __init__(
        self, ctc_weight: float = 0.3, quantity_weight: float = 1.0, label_smoothing: float = 0.1
    ) -> None:
        super().__init__()
        for name, value in (("ctc_weight", ctc_weight), ("label_smoothing", label_smoothing)):
            check(name, value, PartOfOne)
        check("quantity_weight", quantity_weight, Weight)
        self.quantity_weight, self.label_smoothing = quantity_weight, label_smoothing
        self.ctc = AuxiliaryCTC(ctc_weight)

    def forward(
        self,
        encoded_lengths: Tensor,
        tokens: Tensor,
        token_lengths: Tensor,
        slot_log_probs: Tensor | None = None,
        first_tokens: Tensor | None = None,
        counted: Tensor | None = None,
        log_probs: Tensor | None = None,
        log_prob_lengths: Tensor | None = None,
        **batch,
    ) -> dict:
        """encoded_lengths [B], tokens [B, U], token_lengths [B]; where the model has them slot_log_probs [B, U, V],
        first_tokens [B, U] and counted [B]; for CTC log_probs [B, T, V], log_prob_lengths [B].

        Returns ``loss_sum``, ``normalizer``, ``parts`` and ``too_short`` as ``CTCObjective`` does, and ``measures``.
        """
        if slot_log_probs is None:
            return self.ctc.objective(log_probs, log_prob_lengths, tokens, token_lengths)
        too_short = encoded_lengths == 0
        scored = valid_positions(token_lengths, tokens.size(1)) & ~too_short[:, None]
        losses = F.nll_loss(slot_log_probs.transpose(1, 2), tokens, reduction="none")
        if self.training:
            losses = torch.lerp(losses, -slot_log_probs.mean(-1), self.label_smoothing)
        loss_sum = (1 - self.ctc.weight) * torch.where(scored, losses, 0.0).sum()
        parts = {"tokens": loss_sum.detach()}
        if counted is not None and self.quantity_weight:
            off = torch.where(too_short, 0.0, (counted - token_lengths).abs())
            quantity = self.quantity_weight * off.sum().float()
            parts["quantity"] = quantity.detach()
            loss_sum = loss_sum + quantity
        ctc, part = self.ctc(log_probs, log_prob_lengths, tokens, token_lengths)
        measures = {}
        if first_tokens is not None:
            measures["first_pass_accuracy"] = ((first_tokens == tokens) & scored).sum()
        return {
            "loss_sum": loss_sum + ctc,
            "normalizer": scored.sum(),
            "parts": parts | part,
            "measures": measures,
            "too_short": too_short,
        }
