"""What is shown of each family is what its parts say."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
import torch
from support.families import recognizer
from support.tiny_networks import WRITERS

from src.looking.inspection import inspect_recording
from src.model.encoders import MLPEncoder
from src.model.projectors import QFormerProjector
from src.model.projectors.projector import Projected
from src.recognizer import Recognizer
from src.text_encoder import ChatTextEncoder
from src.transforms import LogMel
from src.utils.errors import UserError


def speech_llm() -> Recognizer:
    pytest.importorskip("transformers")
    from src.decoding import SpeechLLMGreedySearch
    from src.model import SpeechLLM
    from src.model.projectors import MLPProjector
    from src.model.writers import CausalLMWriter

    torch.manual_seed(0)
    text_encoder = ChatTextEncoder()
    writer = CausalLMWriter(config=WRITERS["qwen3"])
    parts = LogMel(20), MLPEncoder(20, dim=16, stack=4), MLPProjector(hidden_dim=8), writer
    model = SpeechLLM(*parts, text_encoder.vocab_size, text_encoder.prompt).eval()
    return Recognizer(model, text_encoder, SpeechLLMGreedySearch())


class Dictated(torch.nn.Module):
    """A projector that says vectors [1, P, H] whatever it hears."""

    def __init__(self, vectors: torch.Tensor) -> None:
        super().__init__()
        self.vectors = vectors

    def forward(self, encoded: torch.Tensor, lengths: torch.Tensor) -> Projected:
        return Projected(self.vectors, torch.tensor([self.vectors.size(1)]))


AUDIO = 0.1 * np.random.default_rng(0).standard_normal(16000).astype(np.float32)


@pytest.mark.parametrize(
    ("family", "names"),
    [
        ("ctc", ["ctc"]),
        ("rnnt", ["lattice", "ctc"]),
        ("las", ["attention"]),
        ("lstm", ["attention", "ctc"]),
        ("cif", ["slots", "attention"]),
        ("compression", ["slots", "attention", "ctc"]),
        ("no predictor", ["slots", "ctc"]),
    ],
)
def test_every_family_has_its_pictures_and_the_text_that_it_writes(family, names):
    transcript, pictures = inspect_recording(recognizer(family), AUDIO, "clip", "tiny")
    assert [picture.name for picture in pictures] == names
    assert transcript.text == recognizer(family).transcribe([AUDIO])[0].text
    tokens = len(transcript.hypotheses[0].tokens)
    assert tokens, "the picture of nothing is no test"
    for picture in pictures:
        spectrogram = picture.figure.axes[0]
        assert spectrogram.images[0].get_array().shape[0] == 20
        assert len(spectrogram.lines) in (0, tokens) and spectrogram.get_xlim()[1] == pytest.approx(
            1, abs=0.05
        )
        title = picture.figure.get_suptitle().replace("\n", " ")
        assert title.startswith(f"clip, heard by tiny: {picture.about}")


def test_an_alignment_passes_one_node_for_each_arc():
    transcript, (picture, _) = inspect_recording(recognizer("rnnt"), AUDIO, "clip", "tiny")
    occupied = picture.figure.axes[1].images[0].get_array()
    U = len(transcript.hypotheses[0].tokens)
    assert occupied.shape == (U + 1, 25) and occupied.sum() == pytest.approx(25 + U, rel=1e-5)
    assert occupied.max() <= 1 + 1e-6 and occupied[0, 0] == pytest.approx(1)


@pytest.mark.parametrize(("family", "heads", "end"), [("las", 2, 1), ("lstm", 1, 1), ("cif", 2, 0)])
def test_each_head_looks_at_all_tokens_and_at_frames_that_are_there(family, heads, end):
    transcript, pictures = inspect_recording(recognizer(family), AUDIO, "clip", "tiny")
    figure = {picture.name: picture.figure for picture in pictures}["attention"]
    rows = len(transcript.hypotheses[0].tokens) + end
    maps = [axes.images[0].get_array() for axes in figure.axes[1 : 1 + heads]]
    assert all(each.shape == (rows, 25) for each in maps)
    np.testing.assert_allclose([each.sum(1) for each in maps], np.ones((heads, rows)), rtol=1e-4)
    shown = figure.axes[1].get_yticklabels()[-1].get_text()
    assert (shown == "end") == bool(end)


def test_the_weights_of_a_paraformer_add_up_to_its_slots():
    model = recognizer("cif").model
    transcript, (picture, _) = inspect_recording(recognizer("cif"), AUDIO, "clip", "tiny")
    weights = [bar.get_height() for bar in picture.figure.axes[1].patches]
    U = len(transcript.hypotheses[0].tokens)
    assert len(weights) == 25 and int(sum(weights) + model.predictor.tail) == U
    assert f"sum {sum(weights):.2f}" in picture.about and f"{U} slots" in picture.about


def test_a_speech_llm_shows_what_its_frames_are_like_and_where_it_looks():
    """A projector that puts the embeddings of 'maple' in the place of five frames: that is what is shown."""
    llm = speech_llm()
    ids = llm.text_encoder.encode("maple")
    llm.model.projector = Dictated(llm.model.writer.embed(torch.tensor([ids])))
    transcript, (projected, attention) = inspect_recording(llm, AUDIO, "clip", "tiny")
    assert [projected.name, attention.name] == ["projected", "attention"]
    panel = projected.figure.axes[1]
    assert [label.get_text() for label in panel.get_yticklabels()] == [*"maple"]
    alike = panel.images[0].get_array()
    assert alike.shape == (5, 5) and (alike.argmax(0) == range(5)).all()
    np.testing.assert_allclose(np.diag(alike), 1, rtol=1e-4)
    expected = llm.model.read_as(llm.model.projector.vectors)[0][:, ids].T.detach()
    np.testing.assert_allclose(alike, expected, atol=1e-5)  # negative ones, too
    assert panel.images[0].get_clim() == pytest.approx((-1, 1), rel=1e-4)
    assert projected.figure.axes[-1].get_ylabel() == "cosine"
    rows = len(transcript.hypotheses[0].tokens) + 1
    layers = [axes.images[0].get_array() for axes in attention.figure.axes[1:3]]
    assert all(layer.shape == (rows, 5) and (layer.sum(1) < 1).all() for layer in layers)
    # Where the last layer looks does not hang on how it is asked: with every token's mask, and one by one.
    vectors, tokens = llm.model.projector.vectors, torch.tensor([transcript.hypotheses[0].tokens])
    full = llm.model.looked(vectors, tokens)
    first = llm.model.looked(vectors, tokens[:, :1])
    torch.testing.assert_close(full[:, :2], first, atol=1e-5, rtol=1e-4)
    assert llm.model.writer.network.config._attn_implementation == "sdpa"


def test_all_queries_of_a_window_are_drawn_over_all_of_it():
    """Six vectors, two of each window of ten frames: 'map' in the first queries, 'xyz' in the second ones."""
    llm = speech_llm()
    said = Dictated(llm.model.writer.embed(torch.tensor([llm.text_encoder.encode("mxaypz")])))

    class Windows(QFormerProjector):
        def forward(self, encoded, lengths):
            return said(encoded, lengths)

    llm.model.projector = Windows(window=10, queries=2, num_heads=2).connect(16, llm.model.writer.dim)
    transcript, (projected, attention) = inspect_recording(llm, AUDIO, "clip", "tiny")
    assert "2 queries hear each window of 10 frames" in projected.about
    first, second = (axes.images[0] for axes in projected.figure.axes[1:3])
    assert (first.get_array()[::2].argmax(0) == range(3)).all()  # rows: m x a y p z
    assert (second.get_array()[1::2].argmax(0) == range(3)).all()
    covered_s = 3 * 10 * llm.model.frame_s
    assert first.get_extent()[:2] == second.get_extent()[:2] == pytest.approx([0, covered_s])
    assert projected.figure.axes[0].get_xlim()[1] == pytest.approx(1, abs=0.05)  # the last window ends later
    tokens = torch.tensor([transcript.hypotheses[0].tokens])
    looked = (
        llm.model.looked(said.vectors, tokens)[:, :, ::2] + llm.model.looked(said.vectors, tokens)[:, :, 1::2]
    )
    for layer, axes in zip(looked, attention.figure.axes[1:], strict=False):
        np.testing.assert_allclose(axes.images[0].get_array(), layer.detach(), rtol=1e-4)


def test_what_is_too_short_for_a_frame_is_refused():
    with pytest.raises(UserError, match="clip: 1 samples are too short for a frame"):
        inspect_recording(recognizer("ctc"), AUDIO[:1], "clip", "tiny")


@pytest.mark.parametrize("part", ["decoder.output", "encoder"])
@pytest.mark.parametrize("family", ["cif", "compression"])
def test_a_recording_of_which_nothing_is_possible_has_pictures_all_the_same(family, part):
    broken = recognizer(family)
    with torch.no_grad():
        for parameter in broken.model.get_submodule(part).parameters():
            parameter.fill_(math.nan)
    transcript, pictures = inspect_recording(broken, AUDIO, "clip", "tiny")
    assert transcript.text == "" and [p.name for p in pictures][:2] == ["slots", "attention"]
    for picture in pictures:
        picture.figure.savefig(io.BytesIO(), format="png")
