"""What all waveform augmentations share: probability, severity checks, the peak guard and composition.

An augmentation is a pure function of (audio, generator). ``Compose`` gives each one a generator addressed by
its name, so switching one on or off, or changing its severity, leaves the draws of all others as they were.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from src.utils.errors import UserError
from src.utils.seeding import addressed_rng


class WaveformAugmentation:
    """Base class: with probability ``p`` returns ``self.augment(audio, rng)``, else the audio itself.

    A subclass writes ``augment(audio [N] float32, N >= 1, rng) -> [N'] float32`` and never changes its input.
    A result louder than full scale is scaled back to a peak of 1: only ``Clipping`` clips.

    >>> class Flip(WaveformAugmentation):
    ...     def augment(self, audio, rng):
    ...         return -audio
    >>> Flip(p=1.0)(np.array([0.5, -0.25], dtype=np.float32), addressed_rng(0)).tolist()
    [-0.5, 0.25]
    """

    def __init__(self, p: float) -> None:
        name = type(self).__name__
        if isinstance(p, bool) or not isinstance(p, int | float) or not 0 <= p <= 1:
            raise UserError(f"{name}: p={p!r} is no probability; choose 0 <= p <= 1 in the transforms YAML")
        self.p = float(p)

    def __call__(self, audio: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        if rng.random() >= self.p or audio.size == 0:
            return audio
        augmented = self.augment(audio, rng)
        peak = float(np.abs(augmented).max())
        return (augmented / max(peak, 1.0)).astype(np.float32, copy=False)

    def augment(self, audio: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        raise NotImplementedError

    def interval(
        self, name: str, value: float | Sequence[float], low: float, high: float
    ) -> tuple[float, float]:
        """A severity as (smallest, largest); one number means both. ``UserError`` outside [low, high]."""
        try:
            first, last = (value, value) if isinstance(value, int | float) else value
            first, last = float(first), float(last)
        except (TypeError, ValueError):
            first, last = np.nan, np.nan  # fails the comparison below
        if not low <= first <= last <= high:
            raise UserError(
                f"{type(self).__name__}: {name}={value!r} is no severity; give a number or a pair "
                f"[smallest, largest] within [{low:g}, {high:g}] in the transforms YAML"
            )
        return first, last


class Compose:
    """Applies augmentations in order; ``None`` entries are left out (``...augmentations.reverb=null``).

    ``augmentations``: a mapping name -> augmentation, or a list (then the position is the name). Takes one
    number from ``rng``; every augmentation draws from a generator addressed by that number and its name.
    """

    def __init__(
        self,
        augmentations: Mapping[str, WaveformAugmentation | None] | Sequence[WaveformAugmentation | None],
    ) -> None:
        if not isinstance(augmentations, Mapping):
            augmentations = {str(position): entry for position, entry in enumerate(augmentations)}
        self.augmentations = {str(name): entry for name, entry in augmentations.items() if entry is not None}

    def __call__(self, audio: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        root = int(rng.integers(2**63))
        for name, augmentation in self.augmentations.items():
            audio = augmentation(audio, addressed_rng(root, name))
        return audio


def power(audio: np.ndarray) -> float:
    """Mean square of the samples, in float64 so that very quiet audio does not underflow."""
    return float(np.mean(np.square(audio, dtype=np.float64)))
