"""Pictures of audio, and bars; the parts that ``model_plots`` draws with, too.

Figures are made as objects, without pyplot's global state: nothing to close, safe in threads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from src.utils.audio import SAMPLE_RATE

INK = "#2b2d42"
WAVE = "#5a4fcf"


@dataclass(frozen=True)
class Clip:
    """What one column of a picture shows: audio [N] and its features [T, F]."""

    title: str
    audio: np.ndarray
    features: np.ndarray


@dataclass(frozen=True)
class Looks:
    """Where a model looked for each token: weights [U, T'] from the first to the last of a clip's frames."""

    weights: np.ndarray
    tokens: Sequence[str]


def spectrogram_figure(
    features: np.ndarray, title: str = "", hop_ms: float = 10, looks: Looks | None = None
) -> Figure:
    """A spectrogram [T, F] as a picture, low bins at the bottom; below it, token by token, where a model looked."""
    rows = 1 if looks is None else 2
    below = 0 if looks is None else min(6.0, 1 + 0.12 * len(looks.tokens))
    figure = Figure(figsize=(8, 2.8 + below), layout="constrained", facecolor="white")
    heights = (2.8, below)[:rows]
    axes, *others = figure.subplots(rows, 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    image = draw_spectrogram(axes, features, hop_ms, *colour_range([features]))
    axes.set_ylabel("mel bin")
    axes.set_title(title, fontsize=11, color=INK, loc="left")
    colour_bar(figure, image, axes)
    for axis in others:
        draw_looks(axis, looks, len(features) * hop_ms / 1000)
    figure.axes[rows - 1].set_xlabel("time (s)")
    return figure


def waveform_and_spectrogram_figure(clips: Sequence[Clip], title: str = "", hop_ms: float = 10) -> Figure:
    """One column for each clip: its waveform above its spectrogram, on the same time and colour scale."""
    figure = Figure(figsize=(1.2 + 5 * len(clips), 4.2), layout="constrained", facecolor="white")
    rows = figure.subplots(2, len(clips), squeeze=False, sharex=True, sharey="row", height_ratios=(1, 1.7))
    colours = colour_range([clip.features for clip in clips])
    for column, clip in enumerate(clips):
        wave, spectrogram = rows[:, column]
        draw_waveform(wave, clip.audio, clip.audio.size / SAMPLE_RATE)
        wave.set_title(clip.title, fontsize=11, color=INK, loc="left")
        image = draw_spectrogram(spectrogram, clip.features, hop_ms, *colours)
        spectrogram.set_xlabel("time (s)")
    peak = max([float(np.abs(clip.audio).max(initial=0)) for clip in clips])
    rows[0, 0].set_ylim(-1.05 * max(peak, 0.01), 1.05 * max(peak, 0.01))
    rows[0, 0].set_ylabel("amplitude")
    rows[1, 0].set_ylabel("mel bin")
    duration = max(max(clip.audio.size / SAMPLE_RATE, len(clip.features) * hop_ms / 1000) for clip in clips)
    rows[0, 0].set_xlim(0, max(duration, 0.01))
    colour_bar(figure, image, list(rows[1]))
    figure.suptitle(title, fontsize=13, color=INK, fontweight="bold")
    return figure


def bars_figure(panels: Mapping[str, Mapping[str, float]], title: str = "") -> Figure:
    """Horizontal bars side by side: panel's title with the unit -> label -> value, from the top down."""
    rows = max(map(len, panels.values()))
    figure = Figure(figsize=(1 + 6 * len(panels), 1.2 + 0.3 * rows), layout="constrained", facecolor="white")
    for axes, (name, bars) in zip(
        figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True
    ):
        drawn = axes.barh(list(bars), list(bars.values()), color=WAVE, height=0.7)
        axes.bar_label(drawn, fmt="%.3g", padding=3, fontsize=8, color=INK)
        axes.invert_yaxis()
        axes.margins(x=0.12)
        axes.set_title(name, fontsize=11, color=INK, loc="left")
        axes.grid(axis="x", color="#e6e6ee", linewidth=0.6)
        axes.set_axisbelow(True)
        quiet_frame(axes)
    figure.suptitle(title, fontsize=13, color=INK, fontweight="bold")
    return figure


def draw_waveform(axes: Axes, audio: np.ndarray, duration_s: float, columns: int = 1000) -> None:
    """The envelope (smallest and largest sample of each column): what a line of N points shows, but crisp."""
    step = max(1, audio.size // columns)
    if audio.size:
        pieces = np.pad(audio, (0, -audio.size % step), mode="edge").reshape(-1, step)
        time = (np.arange(len(pieces)) + 0.5) * step * duration_s / audio.size
        axes.fill_between(time, pieces.min(axis=1), pieces.max(axis=1), color=WAVE, linewidth=0.4)
    axes.axhline(0, color=INK, linewidth=0.4, alpha=0.5)
    axes.grid(axis="y", color="#e6e6ee", linewidth=0.6)
    axes.set_axisbelow(True)
    quiet_frame(axes)


def draw_spectrogram(axes: Axes, features: np.ndarray, hop_ms: float, low: float, high: float) -> AxesImage:
    """A spectrogram [T, F] in colours from ``low`` to ``high``, low bins at the bottom."""
    T, F = features.shape
    image = axes.imshow(
        features.T,
        origin="lower",
        aspect="auto",
        interpolation="nearest",
        cmap="magma",
        vmin=low,
        vmax=high,
        extent=(0, max(T, 1) * hop_ms / 1000, 0, F),
    )
    axes.set_facecolor("#f4f4f8")  # where a shorter clip has ended
    quiet_frame(axes)
    return image


def draw_looks(axes: Axes, looks: Looks, duration_s: float) -> AxesImage:
    """The weights of at least one token, the first one at the top."""
    U = len(looks.tokens)
    image = axes.imshow(
        looks.weights,
        aspect="auto",
        interpolation="nearest",
        cmap="Purples",
        vmin=0,
        vmax=float(looks.weights.max(initial=1e-3)),
        extent=(0, max(duration_s, 0.01), U, 0),
    )
    axes.set_yticks(np.arange(U) + 0.5, looks.tokens, fontsize=min(8, max(3, 300 / max(U, 1))))
    axes.set_ylabel("token")
    quiet_frame(axes)
    return image


def drawable(text: str) -> str:
    r"""A text with what the font cannot draw as Python writes it, not as empty boxes.

    >>> drawable("é"), drawable("中")
    ('é', '\\u4e2d')
    """
    known = _characters()
    return "".join(
        character if ord(character) in known else character.encode("unicode_escape").decode()
        for character in text
    )


@cache
def _characters() -> Mapping[int, int]:
    return font_manager.get_font(font_manager.findfont(font_manager.FontProperties())).get_charmap()


def colour_range(features: Sequence[np.ndarray]) -> tuple[float, float]:
    """Shared by all columns; the extremes are left out so that digital silence does not take up the scale."""
    values = np.concatenate([part.ravel() for part in features])
    if values.size == 0:
        return 0.0, 1.0
    low, high = np.percentile(values, [2, 99.9])
    return float(low), float(max(high, low + 1e-3))


def colour_bar(figure: Figure, image: AxesImage, axes: Axes | list[Axes], label: str = "") -> None:
    """What the colours of an image beside it stand for."""
    bar = figure.colorbar(image, ax=axes, pad=0.01, fraction=0.03, aspect=30)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=8, colors=INK, length=2)
    bar.set_label(label, color=INK, fontsize=9)


def quiet_frame(axes: Axes) -> None:
    """No frame, small ticks."""
    axes.spines[:].set_visible(False)
    axes.tick_params(labelsize=8, colors=INK, length=2)
    axes.xaxis.label.set(color=INK, fontsize=9)
    axes.yaxis.label.set(color=INK, fontsize=9)
