"""Sound and pictures as bytes that a browser or a tracker takes; matplotlib without pyplot."""

from __future__ import annotations

import io

import numpy as np
import soundfile
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from src.utils.audio import SAMPLE_RATE


def encode_audio(audio: np.ndarray, format: str = "FLAC") -> bytes:
    """[N] in [-1, 1] as 16-bit ``FLAC`` (half the size, every browser plays it) or ``WAV``; NaN becomes
    silence.

    >>> encode_audio(np.zeros(160, np.float32))[:4]
    b'fLaC'
    """
    buffer = io.BytesIO()
    samples = np.clip(np.nan_to_num(np.asarray(audio, np.float32)), -1, 1)
    soundfile.write(buffer, samples, SAMPLE_RATE, format=format, subtype="PCM_16")
    return buffer.getvalue()


def encode_png(figure: Figure, dpi: int = 90) -> bytes:
    """The picture as PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, bbox_inches="tight")
    return buffer.getvalue()


def figure_pixels(figure: Figure) -> np.ndarray:
    """The picture as [height, width, 3] uint8."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
