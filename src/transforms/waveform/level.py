"""Augmentations of the level: loudness, and the distortion of a recorder driven too hard."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from src.transforms.waveform.base import WaveformAugmentation


class Gain(WaveformAugmentation):
    """Makes the clip louder or quieter by ``gain_db`` decibels; never beyond a peak of 1.

    >>> audio = np.array([0.1, -0.2], dtype=np.float32)
    >>> Gain(p=1.0, gain_db=20 * np.log10(2).item())(audio, np.random.default_rng(0)).round(3).tolist()
    [0.20000000298023224, -0.4000000059604645]
    """

    def __init__(self, p: float = 0.5, gain_db: float | Sequence[float] = (-12.0, 6.0)) -> None:
        super().__init__(p)
        self.gain_db = self.interval("gain_db", gain_db, -60, 60)

    def augment(self, audio: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return audio * np.float32(10 ** (rng.uniform(*self.gain_db) / 20))


class Clipping(WaveformAugmentation):
    """Hard-clips at a drawn fraction of the clip's own peak (1: nothing is clipped, 0.1: harsh)."""

    def __init__(self, p: float = 0.1, peak_fraction: float | Sequence[float] = (0.3, 0.8)) -> None:
        super().__init__(p)
        self.peak_fraction = self.interval("peak_fraction", peak_fraction, 0.01, 1)

    def augment(self, audio: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        limit = np.abs(audio).max() * np.float32(rng.uniform(*self.peak_fraction))
        return np.clip(audio, -limit, limit)
