"""Minimum word error rate training (Prabhavalkar et al., arXiv 1712.01818), of texts drawn from slots."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from rapidfuzz.distance import Levenshtein
from torch import Tensor, nn

from src.loss.paraformer import ParaformerObjective
from src.utils.build import Limits, Weight, check
from src.utils.errors import UserError
from src.utils.masks import valid_positions

Choices = Annotated[int, Limits("a whole number of at least 2", lambda value: 2 <= value < 2**31)]


class WordErrorObjective(nn.Module):
    """Expected word errors of sampled texts, plus ``interpolation`` times the objective before (Paraformer, eq. 9).

    Of N texts drawn from the slots, each once, with probabilities p that are normalised over them and word errors W:
    sum p (W - mean W). Fine-tuning from a trained model only: an untrained one draws nothing but errors.

    Args:
        tokens: of the tokenizer by id.
        samples: N, of each clip.
        interpolation: of ``objective``.
        objective: the one of the training before.

    Raises ``UserError`` for numbers out of range, as fewer than two samples, of which none is better, and for a model
    with a second pass (``sampling_ratio`` above 0), whose texts are partly the references.

    Example:
        >>> objective = WordErrorObjective(["", "▁a", "▁b"], samples=50)
        >>> log_probs = torch.tensor([[[0.0, 0.7, 0.3], [0.0, 0.3, 0.7]]]).log()
        >>> risk = objective.risk(log_probs, torch.tensor([[1, 2]]), torch.tensor([2]), ["a b"])
        >>> round(float(risk), 2)  # 0.49 (0 - 1) + 0.21 (1 - 1) twice + 0.09 (2 - 1)
        -0.4
    """

    def __init__(
        self,
        tokens: Sequence[str],
        samples: int = 4,
        interpolation: float = 0.01,
        objective: nn.Module | None = None,
    ) -> None:
        super().__init__()
        check("WordErrorObjective: samples", samples, Choices)
        check("WordErrorObjective: interpolation", interpolation, Weight)
        self.tokens, self.samples, self.interpolation = list(tokens), samples, interpolation
        self.objective = ParaformerObjective() if objective is None else objective

    def forward(
        self,
        slot_log_probs: Tensor,
        tokens: Tensor,
        token_lengths: Tensor,
        text: list[str],
        shown: Tensor | None = None,
        **batch,
    ) -> dict:
        """What ``ParaformerObjective`` takes, the references, what a second pass was shown; returns what it does."""
        if shown is not None:
            raise UserError(
                "WordErrorObjective draws texts from what no right token was shown to, as a search does; set "
                "model.sampling_ratio=0"
            )
        before = self.objective(
            slot_log_probs=slot_log_probs, tokens=tokens, token_lengths=token_lengths, **batch
        )
        if not self.training:
            return before
        # Of a clip without a frame only the empty text is drawn, which is no risk.
        written = token_lengths.masked_fill(before["too_short"], 0)
        risk = self.risk(slot_log_probs, tokens, written, text)
        parts = {name: self.interpolation * value for name, value in before["parts"].items()}
        return {
            **before,
            "loss_sum": risk + self.interpolation * before["loss_sum"],
            "parts": {"word_errors": risk.detach(), **parts},
        }

    def risk(self, log_probs: Tensor, tokens: Tensor, token_lengths: Tensor, text: Sequence[str]) -> Tensor:
        """log_probs [B, U, V], token_lengths [B], references -> the sum over clips of sum p (W - mean W)."""
        B, U, _ = log_probs.shape
        real = valid_positions(token_lengths, U)
        if not U:
            return log_probs.sum()
        # As in a search, token 0 is never written.
        chances = log_probs[..., 1:].detach().float().softmax(-1).flatten(0, 1)
        # What is no number has no chances, and makes the loss none either: the trainer drops such a step.
        chances = chances.nan_to_num(1.0)
        drawn = 1 + chances.multinomial(self.samples, replacement=True).view(B, U, -1).transpose(1, 2)
        drawn = drawn.masked_fill(~real[:, None], 0)  # [B, N, U]
        scores = log_probs.gather(2, drawn.transpose(1, 2)).transpose(1, 2)
        scores = scores.masked_fill(~real[:, None], 0.0).sum(2)
        # A text that was drawn before counts once.
        same = (drawn[:, :, None] == drawn[:, None]).all(3).tril(-1).any(2)
        p = scores.masked_fill(same, float("-inf")).softmax(1)
        errors = self._errors(drawn.tolist(), token_lengths.tolist(), text).to(p)
        mean = errors.masked_fill(same, 0.0).sum(1, keepdim=True) / (~same).sum(1, keepdim=True)
        return (p * (errors - mean)).sum()

    def _errors(self, drawn: list, lengths: list[int], text: Sequence[str]) -> Tensor:
        """[B, N] word errors."""
        rows = []
        for samples, length, reference in zip(drawn, lengths, text, strict=True):
            words = reference.split()
            texts = (
                "".join(self.tokens[t] for t in sample[:length] if t).replace("▁", " ") for sample in samples
            )
            rows.append([float(Levenshtein.distance(words, written.split())) for written in texts])
        return torch.tensor(rows)
