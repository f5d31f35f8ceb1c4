"""The search of the package pyctcdecode behind Lectern's interface, for comparison."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from src.decoding.hypothesis import Hypothesis
from src.decoding.settings import is_number, require, require_beam_size
from src.text_encoder import WORD_START
from src.utils.errors import UserError

__all__ = ["PyCTCDecodeSearch"]  # not of src.decoding: it opens the file that it is told to


class PyCTCDecodeSearch:
    """``pyctcdecode.build_ctcdecoder`` for one utterance after the other (``pip install pyctcdecode``).

    Args:
        tokens: of the tokenizer by id.
        beam_size: its ``beam_width``.
        lm: a KenLM binary or an ARPA file of words (this needs the package kenlm, too).
        alpha, beta: weight of the language model, and points a word.
        token_min_log_prob, beam_prune_log_prob: its own pruning; -inf in YAML (``-.inf``) for none.

    Raises ``UserError`` where a package is missing or refuses its settings. Its hypotheses have no times, and a text
    of BPE is spelled with the longest tokens, which may not be those that were heard.
    """

    def __init__(
        self,
        tokens: Sequence[str],
        beam_size: int = 100,
        lm: str | None = None,
        alpha: float = 0.5,
        beta: float = 1.5,
        token_min_log_prob: float = -5.0,
        beam_prune_log_prob: float = -10.0,
    ) -> None:
        require_beam_size(beam_size)
        for name, value in (("alpha", alpha), ("beta", beta)):
            require(is_number(value), name, value, "a finite number")
        for name, value in (
            ("token_min_log_prob", token_min_log_prob),
            ("beam_prune_log_prob", beam_prune_log_prob),
        ):
            require(isinstance(value, int | float), name, value, "a number")
        try:
            from pyctcdecode import build_ctcdecoder
        except ImportError:
            raise UserError(
                "decoder=pyctcdecode: the package is not installed; pip install pyctcdecode"
            ) from None
        self.limits = {
            "beam_width": beam_size,
            "token_min_logp": token_min_log_prob,
            "beam_prune_logp": beam_prune_log_prob,
        }
        has_pieces = any(len(token) > 1 and token.startswith(WORD_START) for token in tokens)
        labels = ["", *(token if has_pieces else token.replace(WORD_START, " ") for token in tokens[1:])]
        try:
            self.decoder: Any = build_ctcdecoder(labels, lm, alpha=alpha, beta=beta)
        except Exception as error:  # whatever another package says to a tokenizer, a file or a missing kenlm
            raise UserError(f"decoder=pyctcdecode: {' '.join(str(error).split())[:200]}") from None
        self.ids = {token: number for number, token in enumerate(tokens) if number}
        longest_first = sorted(self.ids, key=len, reverse=True)
        self.pieces = re.compile("|".join(map(re.escape, longest_first)))
        self.leads_with_space = has_pieces

    def __call__(self, log_probs: Tensor, lengths: Tensor) -> list[list[Hypothesis]]:
        """log_probs [B, T, V] (natural log), lengths [B] -> per utterance its hypotheses, best first."""
        rows = zip(log_probs.float().cpu().numpy(), lengths.tolist(), strict=True)
        return [[self._hypothesis(beam) for beam in self._beams(row[:length])] for row, length in rows]

    def _beams(self, log_probs: Any) -> list[tuple]:
        """Its n-best list of one utterance [T, V]; an utterance of no frames has no words."""
        return self.decoder.decode_beams(log_probs, **self.limits) if len(log_probs) else [("", 0.0, 0.0)]

    def _hypothesis(self, beam: tuple) -> Hypothesis:
        text, acoustic, score = beam[0], float(beam[-2]), float(beam[-1])
        spelled = text.replace(" ", WORD_START)
        if self.leads_with_space and text:
            spelled = WORD_START + spelled
        tokens = [self.ids[piece] for piece in self.pieces.findall(spelled)]
        return Hypothesis(tokens, score, {"acoustic": acoustic, "scorers": score - acoustic})
