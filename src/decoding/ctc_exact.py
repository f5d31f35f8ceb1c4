"""Which of two texts is more probable when all of their alignments count, not only those that a beam kept.

Where two texts say the same at the same time, the rest of a recording makes both of them more or less probable alike.
So only the stretches in which they differ are compared, each with a few common tokens around: CTC's forward algorithm
over all frames (``F.ctc_loss``) would take as long as a compiled beam.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from src.decoding.hypothesis import Hypothesis
from src.decoding.settings import without_nan

# On each side of a stretch so many common tokens that are so probable. Any less sure ones hold nothing in its place.
AROUND, SURE = 2, 0.9
LONGEST = 1000  # frames that are compared at once: the forward algorithm's memory grows with their square


def log_ratio(
    log_probs: Tensor, one: Hypothesis, other: Hypothesis, blank: int = 0, needed: float = -math.inf
) -> float:
    """log P(one) - log P(other) over all alignments.

    Args:
        log_probs: [T, V] natural log, unpruned.
        one, other: two texts with their ``token_times``, as a CTC search finds them.
        blank: its token id.
        needed: a result that is not above it may be more than the ratio. So texts that differ throughout cost half
            where ``one`` is improbable already beside the alignments of ``other`` that a search kept.

    Exact (in float32, which takes half of float64's time) where the texts have little in common, up to ``LONGEST``
    frames; else as if what is common to both at the ends of each stretch were said there for sure. No finite number
    where a text is impossible.

    Example: the most probable path is two blanks, but "1" has three others
        >>> log_probs = torch.tensor([[0.6, 0.4], [0.6, 0.4]]).log()
        >>> one, nothing = Hypothesis([1], 0.0, token_times=[0]), Hypothesis([], 0.0)
        >>> round(log_ratio(log_probs, one, nothing), 4) == round(math.log(0.64 / 0.36), 4)
        True
    """
    texts, total = (one, other), 0.0
    spoken = [(np.array(text.tokens, dtype=int), np.array(text.token_times, dtype=int)) for text in texts]
    for first, end in _stretches(log_probs, *spoken):
        parts = [tokens[slice(*times.searchsorted((first, end)))] for tokens, times in spoken]
        log_p_one = _log_p(log_probs[first:end], parts[0], blank)
        if end - first == len(log_probs):
            at_most = log_p_one - other.parts.get("acoustic", -math.inf)
            if at_most <= needed:
                return at_most
        total += log_p_one - _log_p(log_probs[first:end], parts[1], blank)
    return total


def _log_p(log_probs: Tensor, tokens: np.ndarray, blank: int) -> float:
    """[T, V], [L] -> log P(tokens) over all alignments."""
    sizes = len(log_probs), len(tokens)
    loss = F.ctc_loss(
        without_nan(log_probs.float()).unsqueeze(1),
        torch.from_numpy(tokens)[None],
        *map(torch.tensor, sizes),
        blank,
        reduction="sum",
    )
    return -loss.item()


def _stretches(
    log_probs: Tensor, one: tuple[np.ndarray, np.ndarray], other: tuple[np.ndarray, np.ndarray]
) -> Iterator[tuple[int, int]]:
    """Tokens and their frames of two texts -> the stretches of frames where they differ: first one, and end."""
    begins = np.full((2, len(log_probs)), -1)
    for row, (tokens, times) in zip(begins, (one, other), strict=True):
        row[times] = tokens
    differs = np.flatnonzero(begins[0] != begins[1])
    if not len(differs):
        return
    common = np.flatnonzero((begins[0] == begins[1]) & (begins[0] >= 0))
    common = common[log_probs[common, begins[0, common]].numpy() >= math.log(SURE)]
    before = common.searchsorted(differs)
    for part in np.split(before, np.flatnonzero(np.diff(before) >= 2 * AROUND) + 1):
        left, right = part[0] - AROUND, part[-1] + AROUND - 1
        first = common[left] if left >= 0 else 0
        end = common[right] + 1 if right < len(common) else len(log_probs)
        for start in range(first, end, LONGEST):
            yield start, min(start + LONGEST, end)
