"""The two charts that tell how a run goes: losses on the left, error rates on the right, as SVG."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable
from typing import Any

import numpy as np
from matplotlib.figure import Figure

POINTS = 300  # per curve; a bin of steps is drawn as its mean, so that the page stays light
COLOURS = ("#4e79a7", "#f28e2b", "#59a14f", "#e15759", "#b07aa1", "#76b7b2", "#9c755f", "#edc948")
INK = "#7d8590"  # grey that is read on white and on black


def collect(records: Iterable[dict[str, Any]], pattern: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Name -> (steps, values) of the scalars whose last name part matches ``pattern``, without nulls.

    >>> collect([{"step": 1, "train/loss": 3.0, "train/lr": 0.1}, {"step": 2, "train/loss": None}], "loss")
    {'train/loss': (array([1]), array([3.]))}
    """
    curves: dict[str, tuple[list[int], list[float]]] = {}
    for record in records:
        for name, value in record.items():
            if value is not None and re.search(pattern, name.rsplit("/", 1)[-1], re.IGNORECASE):
                steps, values = curves.setdefault(name, ([], []))
                steps.append(record["step"])
                values.append(value)
    return {name: (np.array(steps), np.array(values)) for name, (steps, values) in sorted(curves.items())}


def thin(steps: np.ndarray, values: np.ndarray, points: int = POINTS) -> tuple[np.ndarray, np.ndarray]:
    """At most ``points`` bin means of a curve.

    >>> thin(np.arange(4), np.array([1.0, 3.0, 5.0, 7.0]), points=2)
    (array([0.5, 2.5]), array([2., 6.]))
    """
    if len(steps) <= points:
        return steps, values
    edges = np.linspace(0, len(steps), points + 1).astype(int)
    counts = np.diff(edges)
    return np.add.reduceat(steps, edges[:-1]) / counts, np.add.reduceat(values, edges[:-1]) / counts


def curves_svg(records: Iterable[dict[str, Any]]) -> str:
    """Inline SVG of every loss and every error rate in ``records``; empty when there is none."""
    records = list(records)
    charts = [
        ("loss", 1, collect(records, "loss")),
        ("error rate, %", 100, collect(records, r"(^|_)(wer|cer)(_|$)")),
    ]
    charts = [chart for chart in charts if chart[2]]
    if not charts:
        return ""
    figure = Figure(figsize=(5.2 * len(charts), 2.9), layout="constrained")
    figure.patch.set_alpha(0)
    for axes, (title, scale, curves) in zip(
        figure.subplots(1, len(charts), squeeze=False)[0], charts, strict=True
    ):
        for number, (name, (steps, values)) in enumerate(curves.items()):
            x, y = thin(steps, values * scale)
            marker = "o" if len(x) < 40 else None
            axes.plot(
                x,
                y,
                color=COLOURS[number % len(COLOURS)],
                label=name,
                linewidth=1.6,
                marker=marker,
                markersize=3,
            )
        axes.set_title(title, loc="left", fontsize=10, color=INK)
        axes.set_xlabel("step", fontsize=8, color=INK)
        axes.patch.set_alpha(0)
        axes.tick_params(colors=INK, labelsize=8, length=0)
        axes.spines[:].set_visible(False)
        axes.grid(color=INK, alpha=0.25, linewidth=0.6)
        axes.legend(fontsize=7, frameon=False, labelcolor=INK)
        if scale == 100:
            axes.set_ylim(bottom=0)
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return buffer.getvalue()[buffer.getvalue().index("<svg") :]
