"""Augmentations of the rate: speed (duration and pitch together), and each of the two alone.

Speed and pitch resample by a fraction of small integers: a sinc resampler's cost grows with the numerator, and the
ratio of two arbitrary rates (16000 : 15102) would be a thousand times slower than 100 : 94.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from src.transforms.waveform.base import WaveformAugmentation
from src.utils.errors import UserError
from src.utils.resampling import resample


class Speed(WaveformAugmentation):
    """Plays the clip ``factor`` times as fast, the factor drawn from ``factors`` (Ko et al. 2015).

    N samples become ceil(N / factor), and frequencies are multiplied by the factor. Factors are hundredths
    between 0.5 and 2; ``UserError`` otherwise.
    """

    def __init__(self, p: float = 0.5, factors: Sequence[float] = (0.9, 1.0, 1.1)) -> None:
        super().__init__(p)
        self.factors = tuple(factors)
        for factor in self.factors:
            self.interval("factors", factor, 0.5, 2)
            if abs(factor * 100 - round(factor * 100)) > 1e-6:
                raise UserError(f"Speed: factor {factor} is too fine; write it with two decimals")
        if not self.factors:
            raise UserError("Speed: factors=[] is empty; give some, for instance [0.9, 1.0, 1.1]")

    def augment(self, audio: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        factor = self.factors[rng.integers(len(self.factors))]
        return resample(audio, round(factor * 100), 100)


WINDOW = 480  # 30 ms: two periods of a low voice
REACH = 160  # 10 ms: a period of a low voice can be found within this distance


def stretch(audio: np.ndarray, ratio: float) -> np.ndarray:
    """[N] -> [ceil(N * ratio)] at the same pitch: WSOLA (Verhelst and Roelands 1993), about 5 ms per second.

    Overlapping windows are laid at a new spacing, each taken from where, within 10 ms of its place, the
    waveform goes on most like the window before: periods stay whole, and onsets stay sharp.
    """
    hop = WINDOW // 2
    window = np.hanning(WINDOW + 1)[:-1].astype(np.float32)  # two that overlap by half add up to 1
    length = math.ceil(audio.size * ratio)
    count = length // hop + 2  # the first window begins half a window early, the last reaches beyond the end
    source = np.pad(audio, (hop + REACH, 2 * WINDOW + 2 * REACH))
    stretched = np.zeros((count + 1) * hop, np.float32)
    position = REACH
    for number in range(count):
        place = min(round(number * hop / ratio), audio.size)  # in `source`, REACH samples before the centre
        if number:
            wanted = source[position + hop : position + hop + WINDOW]
            position = place + int(np.correlate(source[place : place + 2 * REACH + WINDOW], wanted).argmax())
        stretched[number * hop : number * hop + WINDOW] += window * source[position : position + WINDOW]
    return stretched[hop : hop + length]


class Tempo(WaveformAugmentation):
    """Speaks ``factor`` times as fast with the same voice: N samples become ceil(N / factor), the pitch is kept."""

    def __init__(self, p: float = 0.3, factor: float | Sequence[float] = (0.8, 1.5)) -> None:
        super().__init__(p)
        self.factor = self.interval("factor", factor, 0.25, 4)

    def augment(self, audio: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return stretch(audio, 1 / rng.uniform(*self.factor))


class Pitch(WaveformAugmentation):
    """Moves the pitch (and the formants with it) by ``semitones``; the duration is kept.

    The clip is stretched, and resampling squeezes it back to its length. The ratio is rounded to a fraction
    with a denominator up to 100 (by < 0.1 semitone).
    """

    def __init__(self, p: float = 0.2, semitones: float | Sequence[float] = (-2.0, 2.0)) -> None:
        super().__init__(p)
        self.semitones = self.interval("semitones", semitones, -12, 12)

    def augment(self, audio: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        ratio = Fraction(2 ** (rng.uniform(*self.semitones) / 12)).limit_denominator(100)
        if ratio == 1:
            return audio
        return resample(stretch(audio, float(ratio)), ratio.numerator, ratio.denominator)[: audio.size]
