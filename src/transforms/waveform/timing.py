"""Augmentations in time: where the clip begins, and gaps in the transmission."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from src.transforms.waveform.base import WaveformAugmentation
from src.utils.audio import SAMPLE_RATE

QUIET = 0.01  # 40 dB below the clip's peak


class TimeShift(WaveformAugmentation):
    """Lets the speech begin later (> 0: zeros are put in front) or earlier (< 0: the quiet lead is cut).

    ``shift_s``: seconds. Speech is never cut, since the transcript would no longer be true: a clip whose
    speech begins at once cannot begin earlier and stays as it is.
    """

    def __init__(self, p: float = 0.3, shift_s: float | Sequence[float] = (-0.2, 0.2)) -> None:
        super().__init__(p)
        self.shift_s = self.interval("shift_s", shift_s, -10, 10)

    def augment(self, audio: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        shift = round(rng.uniform(*self.shift_s) * SAMPLE_RATE)
        if shift >= 0:
            return np.pad(audio, (shift, 0))
        level = np.abs(audio)
        first_loud = int(np.argmax(level >= QUIET * level.max()))
        return audio[min(-shift, first_loud) :]


class DropOuts(WaveformAugmentation):
    """Sets ``gaps`` short stretches of ``gap_s`` seconds each to zero, as lost packets do."""

    def __init__(
        self,
        p: float = 0.1,
        gaps: int | Sequence[int] = (1, 4),
        gap_s: float | Sequence[float] = (0.01, 0.05),
    ) -> None:
        super().__init__(p)
        self.gaps = tuple(round(count) for count in self.interval("gaps", gaps, 0, 1000))
        self.gap_s = self.interval("gap_s", gap_s, 0, 10)

    def augment(self, audio: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        audio = audio.copy()
        for _ in range(rng.integers(self.gaps[0], self.gaps[1] + 1)):
            width = min(round(rng.uniform(*self.gap_s) * SAMPLE_RATE), audio.size)
            start = rng.integers(audio.size - width + 1)
            audio[start : start + width] = 0
        return audio
