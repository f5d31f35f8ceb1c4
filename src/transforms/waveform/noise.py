"""Additive noise at a drawn signal-to-noise ratio: recordings when a folder is given, else coloured noise."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from src.transforms.waveform.base import WaveformAugmentation, power
from src.transforms.waveform.folder import AudioFolder
from src.utils.audio import SAMPLE_RATE


class Noise(WaveformAugmentation):
    """Adds noise so that 10 log10(power of the clip / power of the noise) = SNR, drawn from ``snr_db``.

    ``noise_dir``: folder of recordings (MUSAN, for instance), searched through its sub-folders. Without it
    the noise is made: Gaussian with a power spectrum ~ 1 / frequency ** exponent, the exponent drawn from
    ``exponent`` (0 white, 1 pink, 2 brown). Silence stays silence: it has no ratio to anything.

    Raises ``UserError`` for a folder without recordings, ``AudioError`` when a drawn recording is broken.
    """

    def __init__(
        self,
        p: float = 0.5,
        snr_db: float | Sequence[float] = (5.0, 30.0),
        noise_dir: str | None = None,
        exponent: float | Sequence[float] = (0.0, 2.0),
    ) -> None:
        super().__init__(p)
        self.snr_db = self.interval("snr_db", snr_db, -30, 100)
        self.exponent = self.interval("exponent", exponent, -2, 3)
        self.recordings = AudioFolder(noise_dir) if noise_dir else None

    def augment(self, audio: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        snr_db = rng.uniform(*self.snr_db)
        if self.recordings:
            noise = self.recordings.draw(rng, audio.size)
        else:
            noise = coloured_noise(audio.size, rng.uniform(*self.exponent), rng)
        noise_power = power(noise)
        if noise_power == 0:
            return audio
        scale = np.sqrt(power(audio) / noise_power / 10 ** (snr_db / 10))
        return (audio + scale * noise).astype(np.float32)


def coloured_noise(num_samples: int, exponent: float, rng: np.random.Generator) -> np.ndarray:
    """Gaussian noise [num_samples] float32 with power spectral density ~ 1 / f ** exponent and unit variance.

    The spectrum is flat below 50 Hz; brown noise would otherwise be little but inaudible rumble.
    """
    size = 1 << max(1, (num_samples - 1).bit_length())  # a power of two: a prime length would be slow
    weight = np.exp(-exponent / 2 * _log_frequencies(size))
    weight *= np.sqrt(size / 2 / np.mean(weight**2))
    spectrum = np.empty(len(weight), np.complex64)  # of white noise: independent Gaussians, so drawn as such
    spectrum.real, spectrum.imag = weight * rng.standard_normal((2, len(weight)), dtype=np.float32)
    return np.fft.irfft(spectrum, size)[:num_samples].astype(np.float32)


@lru_cache(16)
def _log_frequencies(size: int) -> np.ndarray:
    return np.log(np.maximum(np.fft.rfftfreq(size, 1 / SAMPLE_RATE), 50.0)).astype(np.float32)
