"""CTC by enumeration: every alignment of a tiny problem, summed by the text it spells."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict


def collapse(path: tuple[int, ...], blank: int = 0) -> tuple[int, ...]:
    """Merges repeats, then removes blanks."""
    merged = [token for token, _ in itertools.groupby(path)]
    return tuple(token for token in merged if token != blank)


def text_probabilities(log_probs: list[list[float]], blank: int = 0) -> dict[tuple[int, ...], float]:
    """Log probability of every token sequence, by summing over all V ** T alignments."""
    mass: dict[tuple[int, ...], float] = defaultdict(float)
    for path in itertools.product(range(len(log_probs[0])), repeat=len(log_probs)):
        mass[collapse(path, blank)] += math.exp(
            sum(frame[token] for frame, token in zip(log_probs, path, strict=True))
        )
    return {text: math.log(p) for text, p in mass.items() if p > 0}
