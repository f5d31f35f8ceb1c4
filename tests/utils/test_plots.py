"""Pictures: what is drawn where, and odd inputs."""

from __future__ import annotations

import io

import matplotlib.pyplot as pyplot
import numpy as np
import pytest

from src.utils.plots import Clip, Looks, bars_figure, spectrogram_figure, waveform_and_spectrogram_figure


def png(figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=40)
    return buffer.getvalue()


def test_spectrogram_has_time_along_x_and_low_bins_below():
    features = np.arange(200, dtype=np.float32).reshape(50, 4)
    figure = spectrogram_figure(features, "a title")
    image = figure.axes[0].images[0]
    assert image.get_array().shape == (4, 50) and image.origin == "lower"
    assert image.get_extent() == pytest.approx([0, 0.5, 0, 4])
    assert figure.axes[0].get_title(loc="left") == "a title"
    assert png(figure).startswith(b"\x89PNG")


def test_below_a_spectrogram_is_drawn_where_a_model_looked():
    weights = np.eye(3, 10, dtype=np.float32) / 2
    figure = spectrogram_figure(np.zeros((50, 4)), looks=Looks(weights, ["a", "▁", "end"]))
    spectrogram, below = figure.axes[0], figure.axes[1]
    image = below.images[0]
    assert np.array_equal(image.get_array(), weights) and image.get_clim() == (0, 0.5)
    assert image.get_extent() == pytest.approx([0, 0.5, 3, 0]) and spectrogram.get_xlim() == below.get_xlim()
    assert [label.get_text() for label in below.get_yticklabels()] == ["a", "▁", "end"]
    png(figure)


def test_columns_share_time_level_and_colours():
    quiet = Clip("quiet", np.full(16000, 0.1, np.float32), np.zeros((100, 8)))
    loud = Clip("loud", np.full(24000, -0.8, np.float32), np.ones((150, 8)))
    figure = waveform_and_spectrogram_figure([quiet, loud], "both")
    first, second, *_ = figure.axes
    assert first.get_xlim() == second.get_xlim() == (0, 1.5)
    assert first.get_ylim() == second.get_ylim() == pytest.approx((-0.84, 0.84))
    images = [axes.images[0] for axes in figure.axes if axes.images]
    assert len(images) == 2 and images[0].get_clim() == images[1].get_clim()
    png(figure)


@pytest.mark.parametrize(("samples", "frames"), [(0, 0), (1, 0), (100, 0), (16000, 100)])
def test_empty_and_silent_clips_are_drawn(samples, frames):
    clip = Clip("", np.zeros(samples, np.float32), np.zeros((frames, 80), np.float32))
    png(waveform_and_spectrogram_figure([clip]))
    png(spectrogram_figure(clip.features))


def test_pyplot_is_not_touched():
    spectrogram_figure(np.zeros((3, 3)))
    assert not pyplot.get_fignums()


def test_bars_are_labelled_from_the_top_down():
    figure = bars_figure({"ms": {"first": 3.0, "second": 0.0}, "MB": {"only": 1.0}}, "a title")
    left, right = figure.axes
    assert [label.get_text() for label in left.get_yticklabels()] == ["first", "second"]
    assert left.yaxis_inverted() and [bar.get_width() for bar in left.patches] == [3.0, 0.0]
    assert right.get_title(loc="left") == "MB" and png(figure).startswith(b"\x89PNG")
