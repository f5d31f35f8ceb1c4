"""The transducer's beam search once more: a dictionary of texts, frame by frame, text by text, token by token."""

from __future__ import annotations

import math
from collections.abc import Callable

from reference.scored_texts import ScoredTexts

NEVER = -math.inf


def log_add(a: float, b: float) -> float:
    high, low = max(a, b), min(a, b)
    return high if low == NEVER else high + math.log1p(math.exp(low - high))


def beam_of_texts(
    log_probs: Callable[[tuple[int, ...]], list[list[float]]],
    frames: int,
    beam_size: int,
    most: int,
    scored: ScoredTexts,
    threshold: float | None,
) -> list[tuple[tuple[int, ...], float]]:
    """Texts and their scores, best first, of at most ``most`` tokens in a frame; where that is one, it takes the frame.

    log_probs: of a text, for each frame the log probability of what comes next, [T, V]; token 0 is the blank.
    """
    beam = {(): (0.0, 0.0)}  # mass that has left all frames so far, and what the scorers have added
    for t in range(frames):

        def after(text: tuple[int, ...], token: int, t: int = t) -> float:
            return log_probs(text)[t][token]

        def leave(text: tuple[int, ...]) -> float:
            return 0.0 if most == 1 else after(text, 0)

        active = {text: mass for text, (mass, _) in beam.items()}  # mass that may still grow in this frame
        beam = {text: (mass + after(text, 0), fused) for text, (mass, fused) in beam.items()}
        for _ in range(most):
            found = []  # rank, text, mass that may grow, mass that has left the frame, what scorers added
            for text, (left, fused) in beam.items():
                parent = text[:-1] if text and text[:-1] in beam else None
                arriving = NEVER if parent is None else active[parent] + after(parent, text[-1])
                left = log_add(left, arriving + leave(text))
                found.append((left + fused, text, arriving, left, fused))
                for token in range(1, len(log_probs(text)[t])):
                    longer = (*text, token)
                    if longer not in beam and active[text] > NEVER:
                        mass, points = active[text] + after(text, token), fused + scored.points(text)[token]
                        found.append((mass + points, longer, mass, mass + leave(longer), points))
            found = [entry for entry in sorted(found, reverse=True)[:beam_size] if entry[0] > NEVER]
            if threshold is not None:
                found = [entry for entry in found if entry[0] >= found[0][0] - threshold]
            active = {text: mass for _, text, mass, _, _ in found}
            beam = {text: (left, fused) for _, text, _, left, fused in found}
    best = max(map(sum, beam.values()))
    ends = [
        (text, left + fused + scored.end(text))
        for text, (left, fused) in beam.items()
        if threshold is None or left + fused >= best - threshold
    ]
    return sorted(ends, key=lambda entry: -entry[1])
