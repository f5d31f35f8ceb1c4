"""CTC by enumeration: every alignment of a tiny problem, summed by the text it spells."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Callable


def collapse(path: tuple[int, ...], blank: int = 0) -> tuple[int, ...]:
    """Merges repeats, then removes blanks."""
    merged = [token for token, _ in itertools.groupby(path)]
    return tuple(token for token in merged if token != blank)


def text_probabilities(
    log_probs: list[list[float]], blank: int = 0, may_start: Callable[[int, int], bool] | None = None
) -> dict[tuple[int, ...], float]:
    """Log probability of every token sequence, by summing over all V ** T alignments.

    With ``may_start``: over those in which every token starts (after another one, or after blank) where it may.
    """
    mass: dict[tuple[int, ...], float] = defaultdict(float)
    for path in itertools.product(range(len(log_probs[0])), repeat=len(log_probs)):
        starts = [t for t, token in enumerate(path) if token != blank and (t == 0 or path[t - 1] != token)]
        if may_start and not all(may_start(t, path[t]) for t in starts):
            continue
        mass[collapse(path, blank)] += math.exp(
            sum(frame[token] for frame, token in zip(log_probs, path, strict=True))
        )
    return {text: math.log(p) for text, p in mass.items() if p > 0}
