"""Changing the sample rate, for any pair of rates."""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache

import numpy as np
import torch
import torchaudio

from src.utils.errors import AudioError

FURTHEST = 64  # times: 16 kHz from 250 Hz to 1 MHz; a damaged header may state any rate


def resample(audio: np.ndarray, rate: int, new_rate: int) -> np.ndarray:
    """[N] float32 at ``rate`` -> [about N * new_rate / rate] at ``new_rate`` (windowed sinc).

    Raises ``AudioError`` for rates that are further apart than sound ever is.

    >>> resample(np.zeros(44100, np.float32), 44100, 16000).shape
    (16000,)
    """
    if rate == new_rate:
        return audio
    if not 1 / FURTHEST <= rate / new_rate <= FURTHEST:
        raise AudioError(f"its sample rate of {rate} Hz cannot be changed to {new_rate} Hz; export it again")
    return _resampler(rate, new_rate)(torch.from_numpy(np.array(audio, dtype=np.float32))).numpy()


@lru_cache(maxsize=32)
def _resampler(rate: int, new_rate: int) -> torchaudio.transforms.Resample:
    # The filter bank grows with the ratio's terms: exact, 44,099 Hz would take gigabytes; so it is off by < 1e-6.
    ratio = Fraction(new_rate, rate).limit_denominator(1000)
    return torchaudio.transforms.Resample(ratio.denominator, ratio.numerator)
