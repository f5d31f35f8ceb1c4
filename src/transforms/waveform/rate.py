"""Augmentations of the rate: speed (duration and pitch together) and pitch alone.

Both resample by a fraction of small integers: a sinc resampler's cost grows with the numerator, and the
ratio of two arbitrary rates (16000 : 15102) would be a thousand times slower than 100 : 94.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import torch
import torchaudio

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


class Pitch(WaveformAugmentation):
    """Moves the pitch (and the formants with it) by ``semitones``; the duration is kept.

    A phase vocoder stretches the clip, and resampling squeezes it back to its length: about 5 ms per second
    of audio on one core. The ratio is rounded to a fraction with a denominator up to 100 (by < 0.1 semitone).
    """

    fft_size = 512  # 32 ms at 16 kHz: resolves the harmonics of a voice without smearing its onsets much
    hop = 128

    def __init__(self, p: float = 0.2, semitones: float | Sequence[float] = (-2.0, 2.0)) -> None:
        super().__init__(p)
        self.semitones = self.interval("semitones", semitones, -12, 12)
        self.window = torch.hann_window(self.fft_size)
        self.phase_advance = torch.linspace(0, math.pi * self.hop, self.fft_size // 2 + 1)[:, None]

    def augment(self, audio: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        ratio = Fraction(2 ** (rng.uniform(*self.semitones) / 12)).limit_denominator(100)
        if ratio == 1:
            return audio
        stretched = self._stretch(audio, float(ratio))
        return resample(stretched, ratio.numerator, ratio.denominator)[: audio.size]

    def _stretch(self, audio: np.ndarray, ratio: float) -> np.ndarray:
        """[N] -> [ceil(N * ratio)], same pitch."""
        samples = torch.from_numpy(np.pad(audio, (0, self.fft_size)))  # so that the last frames overlap fully
        stft = torch.stft(
            samples, self.fft_size, self.hop, window=self.window, pad_mode="constant", return_complex=True
        )
        stft = torchaudio.functional.phase_vocoder(stft, 1 / ratio, self.phase_advance)
        length = math.ceil(audio.size * ratio)
        return torch.istft(stft, self.fft_size, self.hop, window=self.window, length=length).numpy()
