"""Words of a text that somebody else wrote, found in the clip by a checkpoint with CTC."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support.families import recognizer

from src.datasets import load_audio
from src.decoding import (
    AttentionGreedySearch,
    ParaformerBeamSearch,
    ParaformerGreedySearch,
    ParaformerSamplingSearch,
)
from src.model import LASModel
from src.model.encoders import MLPEncoder
from src.model.spellers import LSTMSpeller
from src.recognizer import Recognizer
from src.text_encoder import CharTextEncoder
from src.transforms import LogMel
from src.utils.errors import UserError
from src.utils.pauses import cut_at_pauses

CLIPS = ["samples/audio/m8-en-us-001-000003.flac", "samples/audio/linda-en-002-000000.flac"]


@pytest.fixture(scope="module")
def demo():
    return Recognizer.load("checkpoints/demo", device="cpu")


def batch_of(clips):
    audio = [torch.from_numpy(clip) for clip in clips]
    return {
        "audio": torch.nn.utils.rnn.pad_sequence(audio, batch_first=True),
        "audio_lengths": torch.tensor([len(clip) for clip in audio]),
    }


def test_words_are_found_where_ctc_itself_heard_them(demo):
    """Of the text that its greedy search writes: its best alignment is (about) greedy's own path."""
    clips = [load_audio(clip) for clip in CLIPS]
    transcripts = demo.transcribe(clips)
    found = demo.find_words(batch_of(clips), [transcript.text for transcript in transcripts])
    for transcript, words in zip(transcripts, found, strict=True):
        assert [word for word, *_ in words] == transcript.text.split()
        for (_, start, end, confidence), (_, their_start, their_end, _) in zip(
            words, transcript.words, strict=True
        ):
            assert start == pytest.approx(their_start, abs=0.05) and end == pytest.approx(their_end, abs=0.05)
            assert 0 < confidence <= 1


def test_texts_that_cannot_be_there_have_no_words(demo):
    clips = [load_audio(CLIPS[0]), load_audio(CLIPS[0]), np.zeros(0, np.float32), np.zeros(3200, np.float32)]
    texts = ["дом", "", "nothing", "many words in a fifth of a second of silence"]
    assert demo.find_words(batch_of(clips), texts) == [[], [], [], []]


def test_a_recogniser_without_times_takes_those_of_another(demo):
    torch.manual_seed(0)
    model = LASModel(LogMel(8), MLPEncoder(8, dim=8, stack=2), LSTMSpeller(29, 8), 29).eval()
    mute = Recognizer(model, CharTextEncoder(), AttentionGreedySearch(), times_from=demo)
    decode = mute.decode

    def dictated(outputs, ids):
        transcripts = decode(outputs, ids)
        for transcript, text in zip(transcripts, ("m a p l e", "open"), strict=True):
            transcript.text, transcript.words = text, []
        return transcripts

    mute.decode = dictated
    first, second = mute.transcribe([load_audio(clip) for clip in CLIPS])
    assert {len(first.words), len(second.words)} == {5, 1}

    def half(outputs, ids):
        transcripts = dictated(outputs, ids)
        transcripts[0].words = [("known", 0.0, 0.1, 1.0)]
        return transcripts

    mute.decode = half
    batch = batch_of([load_audio(clip) for clip in CLIPS])
    known, found = mute.recognize({**batch, "utterance_id": ["a", "b"]})
    assert known.words == [("known", 0.0, 0.1, 1.0)]
    expected = demo.find_words(batch_of([load_audio(CLIPS[1])]), ["open"])[0]
    assert [word[0] for word in found.words] == ["open"] and found.words[0][1:3] == expected[0][1:3]
    with pytest.raises(UserError, match="a LASModel has no CTC layer to align words with"):
        mute.find_words(batch_of([load_audio(CLIPS[0])]), ["a"])


@pytest.mark.parametrize(
    "search", [ParaformerGreedySearch(), ParaformerBeamSearch(4), ParaformerSamplingSearch(4)]
)
def test_words_have_the_same_times_alone_and_in_a_batch_and_end_within_the_clip(search):
    rng, cif = np.random.default_rng(0), recognizer("cif")
    cif.search = search
    clips = [(0.1 * rng.standard_normal(n)).astype(np.float32) for n in range(3000, 20000, 613)]
    together, alone = cif.transcribe(clips, batch_size=100), cif.transcribe(clips, batch_size=1)
    late = [
        t.words[-1][2]
        for t, clip in zip(together, clips, strict=True)
        if t.words and t.words[-1][2] > len(clip) / 16000 + cif.model.frame_s
    ]
    assert not late
    assert [[w[:3] for w in t.words] for t in together] == [[w[:3] for w in t.words] for t in alone]


def test_what_was_cut_is_joined_without_loss_with_the_times_of_the_whole(demo):
    """Each piece's words, where the piece lies in the recording."""
    whole = np.concatenate(
        [part for clip in CLIPS for part in (load_audio(clip), np.zeros(16_000, np.float32))]
    )
    pieces = cut_at_pauses(whole, 4.0)
    (joined,) = demo.transcribe([whole], longest_s=4.0)
    parts, before, words = demo.transcribe(pieces), 0.0, []
    for piece, part in zip(pieces, parts, strict=True):
        words += [(word, start + before, end + before, p) for word, start, end, p in part.words]
        before += len(piece) / 16_000
    assert len(pieces) > 1 and before == len(whole) / 16_000
    assert joined.text == " ".join(part.text for part in parts if part.text)
    assert [word for word, *_ in joined.words] == joined.text.split()
    for ours, theirs in zip(joined.words, words, strict=True):
        assert ours[1:] == pytest.approx(theirs[1:], abs=2e-3)
    assert joined.words[-1][1] > 4.0
