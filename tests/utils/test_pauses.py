"""Long recordings: cut at pauses, and joined again without loss."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from src.datasets import load_audio
from src.recognizer import Recognizer
from src.utils.pauses import cut_at_pauses

CLIPS = ["m8-en-us-001-000003", "linda-en-002-000000", "aunty-en-us-000-000004"]


@settings(max_examples=40, deadline=None)
@given(samples=st.integers(0, 100_000), longest_s=st.floats(0.01, 3), seed=st.integers(0, 9))
def test_pieces_put_together_are_the_whole(samples, longest_s, seed):
    audio = np.random.default_rng(seed).standard_normal(samples).astype(np.float32)
    pieces = cut_at_pauses(audio, longest_s)
    assert np.array_equal(np.concatenate(pieces), audio)
    assert all(len(piece) <= max(6400, longest_s * 16_000) for piece in pieces)
    assert all(len(piece) > 0 for piece in pieces) or samples == 0


def test_cuts_fall_into_the_quietest_places():
    rng = np.random.default_rng(0)
    audio = rng.standard_normal(10 * 16_000).astype(np.float32)
    for start in (2.5, 5.0, 7.5):
        audio[int(start * 16_000) : int((start + 0.3) * 16_000)] *= 0.01
    ends = np.cumsum([len(piece) for piece in cut_at_pauses(audio, 4.0)]) / 16_000
    for end, start in zip(ends[:-1], (2.5, 5.0, 7.5), strict=False):
        assert start < end < start + 0.3


def test_a_long_recording_says_what_its_parts_say():
    """Three clips in one recording, with silence between them: each one's words, at their place."""
    recognizer = Recognizer.load("checkpoints/demo", device="cpu")
    clips = [load_audio(f"samples/audio/{name}.flac") for name in CLIPS]
    silence = np.zeros(16_000, np.float32)
    whole = np.concatenate([clips[0], silence, clips[1], silence, clips[2]])
    longest_s = (max(map(len, clips)) + 16_000) / 16_000
    alone = recognizer.transcribe(clips)
    (joined,) = recognizer.transcribe([whole], longest_s=longest_s)
    (first,) = recognizer.transcribe([clips[0]], longest_s=longest_s)
    assert first.text == alone[0].text and first.hypotheses  # short ones stay as they are
    assert joined.text.split() == [word for word, *_ in joined.words]
    expected = " ".join(transcript.text for transcript in alone).split()
    found = joined.text.split()
    assert sum(word in found for word in expected) >= 0.8 * len(expected)
    starts = [start for _, start, _, _ in joined.words]
    assert starts == sorted(starts) and starts[-1] > (len(clips[0]) + len(clips[1]) + 32_000) / 16_000
    assert max(end for _, _, end, _ in joined.words) == pytest.approx(len(whole) / 16_000, abs=1.5)
