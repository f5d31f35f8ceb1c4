"""Word and character error rates of a corpus: all edits over all reference units, never a mean of means.

The alignments are jiwer's. Characters include the spaces between words, as in jiwer. Where a reference holds
nothing, its length counts as 1: the rate is the number of insertions, finite, and 0 only without an error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import jiwer
import numpy as np

from src.utils.seeding import addressed_rng


@dataclass(frozen=True)
class ErrorCounts:
    """Edits that turn a reference into a hypothesis, in words or characters. Counts add up; rates do not.

    >>> (ErrorCounts(substitutions=1, hits=1) + ErrorCounts(hits=8)).rate
    0.1
    """

    substitutions: int = 0
    deletions: int = 0  # in the reference only
    insertions: int = 0  # in the hypothesis only
    hits: int = 0

    @property
    def errors(self) -> int:
        return self.substitutions + self.deletions + self.insertions

    @property
    def reference_length(self) -> int:
        return self.substitutions + self.deletions + self.hits

    @property
    def rate(self) -> float:
        """Errors over reference length, a fraction (0.05 is 5 %); may exceed 1."""
        return self.errors / max(self.reference_length, 1)

    def __add__(self, other: ErrorCounts) -> ErrorCounts:
        return ErrorCounts(
            self.substitutions + other.substitutions,
            self.deletions + other.deletions,
            self.insertions + other.insertions,
            self.hits + other.hits,
        )


def word_errors(references: Sequence[str], hypotheses: Sequence[str]) -> list[ErrorCounts]:
    """Counts in words, one entry per pair. ``ValueError`` where the two lists differ in length.

    >>> word_errors(["the cat sat"], ["the bat sat down"])
    [ErrorCounts(substitutions=1, deletions=0, insertions=1, hits=2)]
    """
    return _errors(jiwer.process_words, references, hypotheses)


def character_errors(references: Sequence[str], hypotheses: Sequence[str]) -> list[ErrorCounts]:
    """Counts in characters (single spaces included), one entry per pair."""
    return _errors(jiwer.process_characters, references, hypotheses)


def corpus_error_rates(references: Sequence[str], hypotheses: Sequence[str]) -> dict[str, float]:
    """``wer`` and ``cer`` (fractions) of all pairs together, and the counts that they are made of.

    >>> rates = corpus_error_rates(["a", "b c d e f g h i j"], ["x", "b c d e f g h i j"])
    >>> rates["wer"], rates["substitutions"], rates["words"]
    (0.1, 1, 10)
    """
    words = sum(word_errors(references, hypotheses), ErrorCounts())
    characters = sum(character_errors(references, hypotheses), ErrorCounts())
    return {
        "wer": words.rate,
        "cer": characters.rate,
        "substitutions": words.substitutions,
        "deletions": words.deletions,
        "insertions": words.insertions,
        "words": words.reference_length,
        "characters": characters.reference_length,
    }


def bootstrap_interval(
    counts: Iterable[ErrorCounts], level: float = 0.95, draws: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """Interval of the corpus rate when utterances are drawn again with replacement (Bisani & Ney 2004).

    An utterance keeps its errors and its length together. Raises ``ValueError`` without utterances.
    """
    drawn = _drawn([(count.errors, count.reference_length) for count in counts], draws, seed)
    return _interval(drawn[:, 0] / np.maximum(drawn[:, 1], 1), level)


def paired_interval(
    counts: Sequence[ErrorCounts],
    baseline: Sequence[ErrorCounts],
    level: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
) -> tuple[float, float]:
    """Interval of the difference to a baseline's rate, each utterance drawn with both its results (Bisani & Ney 2004).

    Below zero as a whole: better than the baseline, whichever utterances one happens to have. Raises ``ValueError``
    where the two lists differ in length or in a reference's, and for none.

    >>> better, worse = [ErrorCounts(hits=9, substitutions=1)] * 50, [ErrorCounts(hits=8, substitutions=2)] * 50
    >>> low, high = paired_interval(better, worse)
    >>> round(low, 3), round(high, 3)
    (-0.1, -0.1)
    """
    pairs = list(zip(counts, baseline, strict=True))
    if any(one.reference_length != other.reference_length for one, other in pairs):
        raise ValueError("the two lists of counts have references of different lengths")
    drawn = _drawn([(one.errors - other.errors, one.reference_length) for one, other in pairs], draws, seed)
    return _interval(drawn[:, 0] / np.maximum(drawn[:, 1], 1), level)


def _drawn(pairs: list[tuple[int, int]], draws: int, seed: int) -> np.ndarray:
    """Sums [draws, 2] of as many pairs, drawn with replacement.

    Utterances with the same pair of numbers are interchangeable, so a draw is one multinomial over the distinct pairs:
    exact, and independent of order.
    """
    if not pairs:
        raise ValueError("an interval needs at least one utterance")
    distinct, times = np.unique(np.asarray(pairs, dtype=np.int64), axis=0, return_counts=True)  # [P, 2], [P]
    return addressed_rng(seed, "bootstrap").multinomial(len(pairs), times / len(pairs), size=draws) @ distinct


def _interval(values: np.ndarray, level: float) -> tuple[float, float]:
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _errors(
    process: Callable[..., jiwer.WordOutput | jiwer.CharacterOutput],
    references: Sequence[str],
    hypotheses: Sequence[str],
) -> list[ErrorCounts]:
    if len(references) != len(hypotheses):
        raise ValueError(f"{len(references)} references but {len(hypotheses)} hypotheses")
    if not references:
        return []
    output = process(
        [" ".join(text.split()) for text in references], [" ".join(text.split()) for text in hypotheses]
    )
    counts = []
    for alignment in output.alignments:
        sizes = dict.fromkeys(("substitute", "delete", "insert", "equal"), 0)
        for chunk in alignment:
            sizes[chunk.type] += max(
                chunk.ref_end_idx - chunk.ref_start_idx, chunk.hyp_end_idx - chunk.hyp_start_idx
            )
        counts.append(ErrorCounts(sizes["substitute"], sizes["delete"], sizes["insert"], sizes["equal"]))
    return counts
