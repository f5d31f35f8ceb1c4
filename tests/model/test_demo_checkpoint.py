"""The repository's own checkpoint on its own recordings: the whole way from a file to words and times."""

from __future__ import annotations

from pathlib import Path

import pytest

from src.recognizer import Recognizer

ROOT = Path(__file__).resolve().parents[2]
TEXTS = {
    "aunty-en-us-000-000004": "four hundred thirty seven park street paris",
    "diogo-en-us-nyc-005-000001": "we'll start at seven thirty two p m on monday",
    "f4-en-us-nyc-004-000002": "onpen my doevery day",
    "linda-en-002-000000": "m i p l e six twenty three",
    "m8-en-us-001-000003": "the thirty fourstfeobmarth nineteen ninety two",
}


@pytest.mark.parametrize(
    "decoder,differently",
    [
        ("greedy", {}),
        (
            "beam",
            {
                "f4-en-us-nyc-004-000002": "open my doevery day",
                "m8-en-us-001-000003": "the thirty fourtfeobmarth nineteen ninety two",
            },
        ),
    ],
)
def test_the_demo_hears_its_samples_as_it_always_did(decoder, differently):
    recognizer = Recognizer.load(ROOT / "checkpoints/demo", decoder=decoder, device="cpu")
    transcripts = recognizer.transcribe([ROOT / f"samples/audio/{name}.flac" for name in TEXTS])
    assert {t.id: t.text for t in transcripts} == {**TEXTS, **differently}
    text, start, end, confidence = transcripts[0].words[0]
    assert (text, start, end) == ("four", 0.28, 0.52)
    assert confidence == pytest.approx(0.976, abs=0.005)
