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
    figure = stages_figure({stage.name: stage.values for stage in stages}, 0.75, "a $title")
    assert len(figure.axes) == 2 * len(stages) and png(figure)
    assert [axes.get_title(loc="left") for axes in figure.axes[::2]] == [
        f"{stage.name} {list(stage.values.shape)}" for stage in stages
    ]


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
