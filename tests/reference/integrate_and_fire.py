"""Integrate-and-fire as its paper tells it: frame by frame, an accumulator that fires when it is full."""

from __future__ import annotations


def fire_by_loop(weights: list[float], count: int) -> list[list[float]]:
    """Weights of T frames -> for each of ``count`` slots the parts of the frames [U][T]."""
    parts = []
    current, full = [0.0] * len(weights), 0.0
    for t, weight in enumerate(weights):
        left = weight
        while full + left >= 1 - 1e-9 and len(parts) < count:
            current[t] += 1 - full
            left -= 1 - full
            parts.append(current)
            current, full = [0.0] * len(weights), 0.0
        current[t] += left
        full += left
    return parts
