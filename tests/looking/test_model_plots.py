"""Pictures of what models do: what is drawn where, and odd inputs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from src.looking.model_plots import Heard, heads_figure, lattice_figure, posteriors_figure, slots_figure
from tests.utils.test_plots import png

# Half a second of features, 13 frames of 40 ms: they end 20 ms later.
HEARD = Heard(np.zeros((50, 4)), 10, 40, 13, ["a", "b", "b"], "a title", [2, 5, 5], [2, 5, 5])
NOTHING = replace(HEARD, tokens=[], borders=[], labels=[])


def words(axes) -> list[tuple[str, float]]:
    return [(text.get_text(), round(text.xy[0], 3)) for text in axes.texts]


def test_above_the_spectrogram_is_the_text_where_it_was_said():
    figure = lattice_figure(HEARD, np.zeros((13, 4)), [2, 5, 5])
    spectrogram, below = figure.axes[:2]
    assert spectrogram.images[0].get_extent() == pytest.approx([0, 0.5, 0, 4])
    assert spectrogram.get_xlim() == below.get_xlim() == (0, pytest.approx(0.52))
    assert [line.get_xdata()[0] for line in spectrogram.lines] == pytest.approx([0.1, 0.22, 0.22])
    assert words(spectrogram) == [("a", 0.1), ("bb", 0.22)]  # two tokens in a frame are legible still
    assert figure.get_suptitle() == "a title" and below.get_xlabel() == "time (s)"


def test_the_path_through_a_lattice_leads_right_and_down():
    occupied = np.arange(52.0).reshape(13, 4) / 52
    below = lattice_figure(HEARD, occupied, [2, 5, 5]).axes[1]
    assert np.array_equal(below.images[0].get_array(), occupied.T)
    assert [label.get_text() for label in below.get_yticklabels()] == ["a", "b", "b", "end"]
    (path,) = below.lines
    assert path.get_xdata() == pytest.approx([0.02, 0.1, 0.1, 0.22, 0.22, 0.22, 0.22, 0.5])
    assert path.get_ydata() == pytest.approx([0.5, 0.5, 1.5, 1.5, 2.5, 2.5, 3.5, 3.5])


def test_tokens_are_named_at_each_of_their_peaks():
    posteriors = np.zeros((13, 4))
    posteriors[:, 0] = 1
    posteriors[2:4, 1], posteriors[5, 2], posteriors[8, 1], posteriors[9, 3] = (0.4, 0.6), 0.8, 0.3, 0.05
    below = posteriors_figure(HEARD, posteriors, ["<blank>", "a", "b", "c"]).axes[1]
    assert sorted(words(below)) == [("a", 0.14), ("a", 0.34), ("b", 0.22)]
    assert len(below.lines) == 2  # never was c likely
    blank = below.collections[0].get_paths()[0].vertices
    assert blank[:, 1].max() == 1 and blank[:, 0].max() == pytest.approx(0.5)


def test_no_two_of_a_whole_alphabet_look_alike():
    posteriors = np.full((13, 29), 0.5)
    lines = posteriors_figure(HEARD, posteriors, [*"-abcdefghijklmnopqrstuvwxyz' "]).axes[1].lines
    looks = [(line.get_color(), line.get_linestyle()) for line in lines]
    assert len(looks) == len(set(looks)) == 28 and len({colour for colour, _ in looks[:15]}) == 15


@pytest.mark.parametrize("sums_to_slots", [True, False])
def test_the_weights_of_frames_and_their_running_sum(sums_to_slots):
    weights, parts = np.full(13, 0.25), np.eye(3, 13)
    figure = slots_figure(HEARD, weights, "weight", parts, sums_to_slots)
    _, above, below, *others = figure.axes
    assert [bar.get_height() for bar in above.patches] == [0.25] * 13
    assert np.array_equal(below.images[0].get_array(), parts)
    sums = [axes.lines[0].get_ydata() for axes in others if axes.lines]
    assert len(sums) == sums_to_slots and all(values[-1] == 3.25 for values in sums)


def test_heads_share_their_colours():
    heads = np.stack([np.eye(3, 13), np.eye(3, 13) / 2])
    _, first, second, *_ = heads_figure(HEARD, heads, HEARD.tokens).axes
    assert first.images[0].get_clim() == second.images[0].get_clim() == (0, 1)
    assert (first.get_ylabel(), second.get_ylabel()) == ("head 1", "head 2")


def test_a_recording_in_which_nothing_was_heard_is_drawn():
    posteriors = np.eye(3)[[0] * 13]
    assert not posteriors_figure(NOTHING, posteriors, ["<blank>", "a", "b"]).axes[1].lines
    for figure in (
        posteriors_figure(NOTHING, posteriors, ["<blank>", "a", "b"]),
        slots_figure(NOTHING, np.zeros(13), "weight", np.zeros((0, 13)), True),
        lattice_figure(NOTHING, np.ones((13, 1)), []),
        heads_figure(NOTHING, np.ones((1, 1, 13)) / 13, ["end"]),
    ):
        assert png(figure).startswith(b"\x89PNG")


def test_dollar_signs_are_no_formulas_and_long_recordings_no_wall():
    heard = replace(NOTHING, title="$5 $6_^" + " word" * 400, frames=10**6)
    figure = lattice_figure(heard, np.ones((13, 1)), [])
    assert figure.get_figwidth() == 40 and "$5 $6_^" in figure.get_suptitle()
    figure.set_size_inches(9, 4)
    png(figure)


def test_many_heads_of_many_tokens_stay_one_picture():
    heard = Heard(np.zeros((100, 20)), 10, 40, 25, ["e"] * 300)
    height = heads_figure(heard, np.full((8, 300, 25), 0.04), heard.tokens).get_size_inches()[1]
    assert height < 30
