"""The CTC objective, summed, with what it had to leave out counted and named; alone and beside another one."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from src.utils.build import Weight, Whole, check
from src.utils.errors import UserError


def frames_needed(tokens: Tensor, token_lengths: Tensor) -> Tensor:
    """Least frames an alignment takes: every token, and a blank between equal neighbours. [B, U] -> [B].

    >>> frames_needed(torch.tensor([[5, 5, 7], [5, 6, 0]]), torch.tensor([3, 2])).tolist()
    [4, 2]
    """
    inside = torch.arange(1, tokens.size(1), device=tokens.device) < token_lengths[:, None]
    repeats = (tokens[:, 1:] == tokens[:, :-1]) & inside
    return token_lengths + repeats.sum(1)


class CTCObjective(nn.Module):
    """Negative log likelihood of the tokens over all alignments (Graves et al., 2006), in float32.

    Returns sums and a normaliser (the number of target tokens that were scored), so that accumulation and
    uneven batches give the same gradient as one large batch. A clip with fewer frames than its transcript
    needs has no alignment: its infinite loss counts as zero, and it is marked.
    """

    why_too_short = "its transcript has more symbols than the model has frames for it"

    def __init__(self, blank: int = 0) -> None:
        super().__init__()
        check("blank", blank, Whole)
        self.blank = blank

    def forward(
        self,
        log_probs: Tensor,
        log_prob_lengths: Tensor,
        tokens: Tensor,
        token_lengths: Tensor,
        **batch,
    ) -> dict:
        """log_probs [B, T, V], log_prob_lengths [B], tokens [B, U], token_lengths [B].

        Returns ``loss_sum`` (scalar), ``normalizer`` (scalar), ``parts`` (name -> scalar sum over the same
        normaliser) and ``too_short`` ([B] bool: left out).
        """
        losses = F.ctc_loss(
            log_probs.float().transpose(0, 1),
            tokens,
            log_prob_lengths,
            token_lengths,
            blank=self.blank,
            reduction="none",
            zero_infinity=True,
        )
        alignable = frames_needed(tokens, token_lengths) <= log_prob_lengths
        loss_sum = losses.sum()
        return {
            "loss_sum": loss_sum,
            "normalizer": (token_lengths * alignable).sum(),
            "parts": {"ctc": loss_sum.detach()},
            "too_short": ~alignable,
        }


class AuxiliaryCTC(nn.Module):
    """CTC on the encoder beside another objective, ``weight`` times; 0: none.

    A clip with fewer frames than CTC needs for its transcript adds 0 here; the other objective may still learn from it,
    so it is not marked.

    Raises ``UserError`` for a weight below 0, or one above 0 with a model that has no CTC layer.
    """

    def __init__(self, weight: float, blank: int = 0) -> None:
        super().__init__()
        check("ctc_weight", weight, Weight)
        self.weight = weight
        self.objective = CTCObjective(blank)

    def forward(
        self, log_probs: Tensor | None, log_prob_lengths: Tensor | None, tokens: Tensor, token_lengths: Tensor
    ) -> tuple[Tensor | float, dict[str, Tensor]]:
        """As ``CTCObjective``, None without a CTC layer -> the weighted sum, and its part of the loss by name."""
        if not self.weight:
            return 0.0, {}
        if log_probs is None:
            raise UserError(f"ctc_weight={self.weight} needs a CTC layer; set model.ctc=true")
        loss = self.weight * self.objective(log_probs, log_prob_lengths, tokens, token_lengths)["loss_sum"]
        return loss, {"ctc": loss.detach()}
