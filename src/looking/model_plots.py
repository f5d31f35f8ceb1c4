"""Pictures of what a model does with a recording, on one time axis, most of them below its spectrogram.

What the numbers are is the business of ``inspection.py`` and ``audio_stages.py``; nothing here knows of models.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from src.looking.audio_stages import Stage
from src.utils.plots import (
    INK,
    WAVE,
    Looks,
    colour_bar,
    colour_range,
    draw_looks,
    draw_spectrogram,
    draw_waveform,
    quiet_frame,
)

BORDER, PATH = "#9be7ff", "#e07a2f"
# Neighbours in the alphabet far apart, and none of them grey as the blank is; after the last one lines are broken.
CURVES = ("#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#000000", "#e377c2", "#17becf")
CURVES += ("#8c564b", "#ff00ff", "#000080", "#bcbd22", "#004d00", "#80afdf", "#800030")
STYLES = ("-", "--", ":")
WIDTH_PER_S, NARROWEST, WIDEST = 3.0, 9.0, 40.0  # inches
HIGHEST = 24.0  # inches, of all heads together
LEAST_SHOWN = 0.1  # posterior that a token has to reach once for its curve to be drawn


@dataclass(frozen=True)
class Heard:
    """A recording, and the text that a model wrote.

    ``borders`` and ``labels`` say, in frames, where its tokens are (one number a token, or none where nobody knows): a
    line through the spectrogram, and the token above it.
    """

    features: np.ndarray  # [T, F]
    hop_ms: float  # of the features
    frame_ms: float  # of the model
    frames: int  # T', of the model
    tokens: Sequence[str]
    title: str = ""
    borders: Sequence[float] = ()
    labels: Sequence[float] = ()

    @property
    def duration_s(self) -> float:
        """Of the model's frames, which may end a little after the features."""
        return self.frames * self.frame_ms / 1000

    def seconds(self, frames: Sequence[float] | np.ndarray) -> np.ndarray:
        """The middles of frames, in seconds."""
        return (np.asarray(frames, dtype=float) + 0.5) * self.frame_ms / 1000


def posteriors_figure(heard: Heard, posteriors: np.ndarray, names: Sequence[str]) -> Figure:
    """CTC: the posteriors [T', V] of the blank (token 0, as an area) and of every token that is ever likely."""
    figure, (axes,) = _below_the_spectrogram(heard, [2.4])
    time = heard.seconds(range(len(posteriors)))
    axes.fill_between(time, posteriors[:, 0], color="#d9d9e3", linewidth=0)
    for position, v in enumerate(np.flatnonzero(posteriors.max(0, initial=0)[1:] >= LEAST_SHOWN) + 1):
        cycle, place = divmod(position, len(CURVES))
        colour = CURVES[place]
        axes.plot(time, posteriors[:, v], STYLES[cycle % len(STYLES)], color=colour, linewidth=1)
        shown = posteriors[:, v] >= LEAST_SHOWN
        for start, end in np.flatnonzero(np.diff(shown, prepend=False, append=False)).reshape(-1, 2):
            peak = start + int(posteriors[start:end, v].argmax())
            _text(axes, time[peak], posteriors[peak, v], names[v], colour)
    axes.set_ylim(0, 1.15)
    axes.set_ylabel("posterior (blank: grey)")
    quiet_frame(axes)
    return figure


def slots_figure(
    heard: Heard, weights: np.ndarray, weight_name: str, parts: np.ndarray, sums_to_slots: bool
) -> Figure:
    """Paraformer: the predictor's weight of each frame [T'], and the slots that it makes of them [U, T'].

    Where the weights are integrated (``sums_to_slots``), their running sum is drawn as well: a slot is full at each
    whole number.
    """
    heights = [1.8] if len(parts) == 0 else [1.8, _height(len(parts))]
    figure, (axes, *below) = _below_the_spectrogram(heard, heights)
    time = heard.seconds(range(len(weights)))
    axes.bar(time, weights, width=0.9 * heard.frame_ms / 1000, color=WAVE, alpha=0.75)
    axes.set_ylabel(weight_name)
    axes.set_ylim(0, 1.05 * max(1.0, float(weights.max(initial=0))))
    quiet_frame(axes)
    for border in heard.seconds(heard.borders):
        axes.axvline(border, color=INK, linewidth=0.5, alpha=0.6)
    if sums_to_slots:
        total = axes.twinx()
        total.plot(time, weights.cumsum(), color=PATH, linewidth=1.2)
        total.set_ylim(0, 1.05 * max(1.0, float(weights.sum())))
        total.set_ylabel("sum so far (tokens)")
        quiet_frame(total)
        total.yaxis.label.set_color(PATH)
    for axes in below:
        image = draw_looks(axes, Looks(parts, heard.tokens), heard.duration_s)
        axes.set_ylabel("slot")
        colour_bar(figure, image, axes, "share of the slot")
    return figure


def heads_figure(
    heard: Heard,
    weights: np.ndarray,
    rows: Sequence[str],
    heads: Sequence[str] | None = None,
    covered_s: float | None = None,
) -> Figure:
    """Attention: where each head looks for each token, [H, U, T'] with the tokens of its rows, and the heads' names.

    ``covered_s``: what the T' columns cover, where that is not the model's frames.
    """
    heads = heads or [
        f"head {number}" if len(weights) > 1 else "token" for number in range(1, len(weights) + 1)
    ]
    figure, panels, image = _matrices(heard, weights, rows, heads, covered_s)
    for axes in panels:
        axes.images[0].set_clim(0, weights.max())
    colour_bar(figure, image, panels, "weight")
    return figure


def cosines_figure(
    heard: Heard, cosines: np.ndarray, rows: Sequence[str], panels: Sequence[str], covered_s: float
) -> Figure:
    """How like each of U tokens the vectors are that a speech LLM hears, [panels, U, P]; no likeness is white."""
    figure, axes, image = _matrices(heard, cosines, rows, panels, covered_s)
    most = max(float(np.abs(cosines).max(initial=0)), 1e-3)
    for each in axes:
        each.images[0].set(cmap="PuOr", clim=(-most, most))
    colour_bar(figure, image, axes, "cosine")
    return figure


def _matrices(
    heard: Heard,
    values: np.ndarray,
    rows: Sequence[str],
    names: Sequence[str],
    covered_s: float | None,
) -> tuple[Figure, list[Axes], AxesImage]:
    """Matrices [panels, U, T'] with the tokens of their rows, the last one's image."""
    height = min(_height(len(rows)), HIGHEST / len(values))
    figure, panels = _below_the_spectrogram(heard, [height] * len(values))
    for axes, matrix, name in zip(panels, values, names, strict=True):
        image = draw_looks(axes, Looks(matrix, rows), covered_s or heard.duration_s)
        axes.set_ylabel(name)
    return figure, panels, image


def lattice_figure(heard: Heard, occupied: np.ndarray, path: Sequence[int]) -> Figure:
    """Transducer: P(an alignment of the text passes a node) [T', U + 1], and the frames in which the best one emits.

    A row is a text so far, and says which token comes next; blanks lead to the right, tokens down.
    """
    U = len(path)
    figure, (axes,) = _below_the_spectrogram(heard, [_height(U + 1)])
    image = draw_looks(axes, Looks(occupied.T, [*heard.tokens, "end"]), heard.duration_s)
    image.set_clim(0, 1)
    axes.set_ylabel("next token")
    time = np.repeat(heard.seconds([0, *path, len(occupied) - 1]), 2)[1:-1]
    row = np.repeat(np.arange(U + 1) + 0.5, 2)
    axes.plot(time, row, color=PATH, linewidth=1, label="best path")
    axes.legend(loc="upper right", fontsize=8, frameon=False)
    colour_bar(figure, image, axes, "posterior")
    return figure


def stages_figure(stages: Sequence[Stage], duration_s: float, title: str = "") -> Figure:
    """A recording on its way through a model, on one time axis: what has one column as a curve, all else as a picture.

    Beside each is how often which value occurs; the picture has the colours of these bars, and its scale, from its 1st
    to its 99th percentile, is its own.
    """
    heights = [1.2 if _is_curve(stage) else 2.2 for stage in stages]
    width = min(WIDEST, max(NARROWEST, WIDTH_PER_S * duration_s))
    figure = Figure(figsize=(width + 3, 0.8 + sum(heights)), layout="constrained", facecolor="white")
    grid = figure.subplots(
        len(stages),
        2,
        squeeze=False,
        height_ratios=heights,
        width_ratios=[width, 3],
        gridspec_kw={"wspace": 0.02},
    )
    for (axes, beside), stage in zip(grid, stages, strict=True):
        values = stage.values
        colours = None
        if _is_curve(stage):
            draw_waveform(axes, values.reshape(-1), duration_s)
        else:
            low, high = np.percentile(values, (1, 99)) if values.size else (0, 1)
            colours = axes.imshow(
                values.T,
                origin="lower",
                aspect="auto",
                interpolation="nearest",
                cmap="magma",
                vmin=low,
                vmax=max(high, low + 1e-6),
                extent=(0, duration_s, 0, values.shape[1]),
            )
        axes.set_ylabel(stage.column)
        quiet_frame(axes)
        axes.set_xlim(0, duration_s)
        axes.set_title(f"{stage.name} {list(values.shape)}", fontsize=10, color=INK, loc="left")
        _draw_histogram(beside, values.reshape(-1), colours)
    grid[-1, 0].set_xlabel("time (s)")
    grid[-1, 1].set_xlabel("value")
    if not all(map(_is_curve, stages)):
        title += (
            "\nEach picture has the colours of the bars beside it, from its own 1st to its 99th percentile."
        )
    title = "\n".join(textwrap.fill(line, int(11 * width)) for line in title.splitlines() if line)
    figure.suptitle(title, fontsize=11, color=INK, x=0.01, ha="left", parse_math=False)
    return figure


def _is_curve(stage: Stage) -> bool:
    return stage.values.ndim == 1 or stage.values.shape[1] == 1


def _draw_histogram(axes: Axes, values: np.ndarray, colours: AxesImage | None) -> None:
    """How many percent of the values [N] are in each of 60 equal ranges, in an image's colours for them."""
    shares = np.full(len(values), 100 / max(1, len(values)))
    _, edges, bars = axes.hist(values, bins=60, weights=shares, color=WAVE)
    if colours is not None:
        axes.set_facecolor("#f4f4f8")  # the highest values are nearly white
        for bar, middle in zip(bars, (edges[:-1] + edges[1:]) / 2, strict=True):
            bar.set_color(colours.cmap(colours.norm(middle)))
    axes.set_ylabel("% of values")
    quiet_frame(axes)


def _height(rows: int) -> float:
    """Inches for a matrix of so many tokens."""
    return min(14.0, max(1.4, 0.6 + 0.13 * rows))


def _below_the_spectrogram(heard: Heard, heights: Sequence[float]) -> tuple[Figure, list[Axes]]:
    """A spectrogram with the text's tokens, and panels of these heights below it."""
    width = min(WIDEST, max(NARROWEST, WIDTH_PER_S * heard.duration_s))
    figure = Figure(figsize=(width, 3 + sum(heights)), layout="constrained", facecolor="white")
    axes, *panels = figure.subplots(
        1 + len(heights), 1, sharex=True, squeeze=False, height_ratios=[2.4, *heights]
    )[:, 0]
    image = draw_spectrogram(axes, heard.features, heard.hop_ms, *colour_range([heard.features]))
    axes.set_ylabel("mel bin")
    colour_bar(figure, image, axes, "log energy")
    for border in heard.seconds(heard.borders):
        axes.axvline(border, color=BORDER, linewidth=0.7, alpha=0.9)
    top = heard.features.shape[1]
    together: dict[float, str] = {}  # what is written in one frame
    for label, token in zip(heard.seconds(heard.labels), heard.tokens, strict=bool(len(heard.labels))):
        together[label] = together.get(label, "") + token
    for label, tokens in together.items():
        _text(axes, label, top, tokens)
    axes.set_xlim(0, heard.duration_s)
    title = "\n".join(textwrap.fill(line, int(11 * width)) for line in heard.title.splitlines())
    # A file's name may hold dollar signs.
    figure.suptitle(title, fontsize=11, color=INK, x=0.01, ha="left", parse_math=False)
    (panels or [axes])[-1].set_xlabel("time (s)")
    return figure, panels


def _text(axes: Axes, x: float, y: float, token: str, colour: str = INK) -> None:
    """A token just above a point."""
    axes.annotate(
        token,
        (x, y),
        (0, 2),
        textcoords="offset points",
        ha="center",
        va="bottom",
        fontsize=8,
        color=colour,
        annotation_clip=False,
        parse_math=False,
    )
