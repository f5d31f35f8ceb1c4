"""Augmentations that are linear filters: the room, and the bandwidth of a channel.

Both convolve through the FFT and line the result up with the input, so that no word moves in time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from src.transforms.waveform.base import WaveformAugmentation, power
from src.transforms.waveform.folder import AudioFolder
from src.utils.audio import SAMPLE_RATE

TELEPHONE_HZ = (300.0, 3400.0)


class Reverb(WaveformAugmentation):
    """Puts the clip into a room; length, timing and energy are kept.

    ``rir_dir``: folder of measured room impulse responses; their strongest tap is taken as the direct path.
    Without it the room is simulated: a direct path and a tail of Gaussian noise that decays by 60 dB in
    ``rt60_s`` seconds (Polack's model), ``direct_to_reverb_db`` weaker than the direct path.

    Raises ``UserError`` for a folder without recordings, ``AudioError`` when a drawn response is broken.
    """

    def __init__(
        self,
        p: float = 0.3,
        rt60_s: float | Sequence[float] = (0.15, 0.6),
        direct_to_reverb_db: float | Sequence[float] = (0.0, 12.0),
        rir_dir: str | None = None,
    ) -> None:
        super().__init__(p)
        self.rt60_s = self.interval("rt60_s", rt60_s, 0.01, 10)
        self.direct_to_reverb_db = self.interval("direct_to_reverb_db", direct_to_reverb_db, -30, 60)
        self.responses = AudioFolder(rir_dir) if rir_dir else None

    def augment(self, audio: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        response = self.responses.draw(rng) if self.responses else self._simulate(rng)
        wet = convolve(audio, response, origin=int(np.abs(response).argmax()))
        wet_power = power(wet)
        return audio if wet_power == 0 else wet * np.float32(np.sqrt(power(audio) / wet_power))

    def _simulate(self, rng: np.random.Generator) -> np.ndarray:
        rt60 = rng.uniform(*self.rt60_s)
        time = np.arange(1, math.ceil(rt60 * SAMPLE_RATE)) / SAMPLE_RATE
        tail = rng.standard_normal(time.size) * 10 ** (-3 * time / rt60)  # amplitude: -60 dB at rt60
        tail *= 10 ** (-rng.uniform(*self.direct_to_reverb_db) / 20) / np.linalg.norm(tail)
        # No reflection is louder than the direct path, or it would be taken for it.
        return np.concatenate([[1.0], np.clip(tail, -0.99, 0.99)]).astype(np.float32)


class BandLimit(WaveformAugmentation):
    """Narrows the band: a telephone channel (300-3400 Hz) or a low-pass at a drawn frequency.

    ``telephone``: share of telephone channels among the limited clips; the others lose what lies above a
    frequency drawn from ``low_pass_hz``. Linear-phase FIR (windowed sinc), transition about 170 Hz wide.
    """

    taps = 513  # at 16 kHz; odd, so that the middle tap is the origin

    def __init__(
        self,
        p: float = 0.2,
        low_pass_hz: float | Sequence[float] = (2500.0, 7000.0),
        telephone: float = 0.5,
    ) -> None:
        super().__init__(p)
        self.low_pass_hz = self.interval("low_pass_hz", low_pass_hz, 100, SAMPLE_RATE / 2)
        self.telephone, _ = self.interval("telephone", telephone, 0, 1)

    def augment(self, audio: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        telephone = rng.random() < self.telephone
        low, high = TELEPHONE_HZ if telephone else (0.0, rng.uniform(*self.low_pass_hz))
        return convolve(audio, self._kernel(low, high), origin=self.taps // 2)

    def _kernel(self, low_hz: float, high_hz: float) -> np.ndarray:
        time = np.arange(self.taps) - self.taps // 2
        low, high = 2 * low_hz / SAMPLE_RATE, 2 * high_hz / SAMPLE_RATE
        ideal = high * np.sinc(high * time) - low * np.sinc(low * time)
        return (ideal * np.blackman(self.taps)).astype(np.float32)


def convolve(audio: np.ndarray, kernel: np.ndarray, origin: int) -> np.ndarray:
    """Convolution of audio [N] with a kernel [K] whose tap ``origin`` stands at time 0 -> [N] float32.

    >>> audio, kernel = np.float32([1, 2, 3]), np.float32([0, 1, 0.5])
    >>> convolve(audio, kernel, origin=1).round(4).tolist()
    [1.0, 2.5, 4.0]
    """
    size = 1 << (audio.size + kernel.size - 1).bit_length()
    product = np.fft.rfft(audio, size) * np.fft.rfft(kernel, size)
    return np.fft.irfft(product, size)[origin : origin + audio.size].astype(np.float32)
