"""Waveform augmentations, each a pure function (audio [N] float32, generator) -> [N'] float32."""

from src.transforms.waveform.base import Compose, WaveformAugmentation
from src.transforms.waveform.filters import BandLimit, Reverb
from src.transforms.waveform.level import Clipping, Gain
from src.transforms.waveform.noise import Noise
from src.transforms.waveform.rate import Pitch, Speed, Tempo
from src.transforms.waveform.timing import DropOuts, TimeShift

__all__ = [
    "BandLimit",
    "Clipping",
    "Compose",
    "DropOuts",
    "Gain",
    "Noise",
    "Pitch",
    "Reverb",
    "Speed",
    "Tempo",
    "TimeShift",
    "WaveformAugmentation",
]
