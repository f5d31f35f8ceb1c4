"""The stages of a recording, in every family."""

from __future__ import annotations

import numpy as np
import pytest
from support.families import MODELS, recognizer

from src.looking.audio_stages import Stage, stages_of
from src.looking.model_plots import stages_figure
from src.utils.errors import UserError
from tests.utils.test_plots import png

AUDIO = (np.random.default_rng(0).standard_normal(12_000) * 0.1).astype(np.float32)


@pytest.mark.parametrize("family", MODELS)
def test_every_family_has_its_stages(family):
    ours = recognizer(family)
    stages, transcript = stages_of(ours, AUDIO, "a")
    names = [stage.name for stage in stages]
    assert names[:4] == ["waveform", "normalised waveform", "features", "embeddings"] and len(
        set(names)
    ) == len(names)
    encoded = ours.transcribe([AUDIO])[0]
    assert transcript.text == encoded.text
    assert stages[2].values.shape == (75, 20) and stages[3].values.shape == (19, 16)
    assert stages[3].compression == 12_000 / 19 and stages[3].ms == pytest.approx(750 / 19)
    figure = stages_figure(stages, 0.75, "a $title")
    assert len(figure.axes) == 2 * len(stages) and png(figure)
    assert [axes.get_title(loc="left") for axes in figure.axes[::2]] == [
        f"{stage.name} {list(stage.values.shape)}" for stage in stages
    ]
    assert [axes.get_ylabel() for axes in figure.axes[:8:2]] == [
        "amplitude",
        "amplitude",
        "mel bin",
        "dimension",
    ]


def test_a_stage_has_the_colours_of_its_histogram():
    """Of the values 0 to 199 the 1st and 99th percentiles, 1.99 and 197.01, are black and white."""
    curve = Stage("a", np.arange(4.0), 4, "amplitude")
    stages = [curve, Stage("b", np.arange(200.0).reshape(50, 4), 4, "mel bin")]
    figure = stages_figure(stages, 1, "a title")
    line, values, picture, histogram = figure.axes
    assert (line.get_ylabel(), picture.get_ylabel()) == ("amplitude", "mel bin")
    assert values.get_ylabel() == histogram.get_ylabel() == "% of values"
    assert sum(bar.get_height() for bar in histogram.patches) == pytest.approx(100)
    image = picture.images[0]
    assert image.get_clim() == pytest.approx((1.99, 197.01))
    for bar in histogram.patches:
        middle = bar.get_x() + bar.get_width() / 2
        assert bar.get_facecolor() == pytest.approx(image.to_rgba(middle))
    assert "its own 1st to its 99th percentile" in figure.get_suptitle().replace("\n", " ")
    assert "percentile" not in stages_figure([curve], 1, "a title").get_suptitle()


def test_statistics_by_hand():
    stage = Stage("a", np.array([[1.0, 3.0], [5.0, 7.0]], dtype=np.float32), 320)
    assert stage.statistics() == pytest.approx((4.0, 5**0.5, 1.0, 7.0))
    assert (stage.compression, stage.ms) == (160, 10)
    assert Stage("b", np.zeros((0, 4), dtype=np.float32), 320).statistics() == (0, 0, 0, 0)


def test_a_recording_without_a_frame_is_refused():
    with pytest.raises(UserError, match="a: 100 samples are too short for a frame"):
        stages_of(recognizer("ctc"), AUDIO[:100], "a")


def test_a_speech_llm_has_projected_embeddings():
    pytest.importorskip("transformers")
    from src.decoding import SpeechLLMGreedySearch
    from src.recognizer import Recognizer
    from src.text_encoder import ChatTextEncoder
    from tests.model.test_speech_llm import speech_llm

    ours = Recognizer(speech_llm(), ChatTextEncoder(), SpeechLLMGreedySearch())
    stages, _ = stages_of(ours, AUDIO, "a")
    names = ["waveform", "normalised waveform", "features", "embeddings", "projected embeddings"]
    assert [stage.name for stage in stages] == names
    assert [stage.values.shape for stage in stages[2:]] == [(75, 16), (38, 16), (9, 16)]  # (38 - 4) // 4 + 1
