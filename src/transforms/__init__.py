"""From samples to features: waveform augmentations (host), log-mel (device), SpecAugment (device)."""

from src.transforms.log_mel import LogMel
from src.transforms.spec_augment import SpecAugment
from src.transforms.waveform import (
    BandLimit,
    Clipping,
    Compose,
    DropOuts,
    Gain,
    Noise,
    Pitch,
    Reverb,
    Speed,
    Tempo,
    TimeShift,
    WaveformAugmentation,
)

__all__ = [
    "BandLimit",
    "Clipping",
    "Compose",
    "DropOuts",
    "Gain",
    "LogMel",
    "Noise",
    "Pitch",
    "Reverb",
    "SpecAugment",
    "Speed",
    "Tempo",
    "TimeShift",
    "WaveformAugmentation",
]
