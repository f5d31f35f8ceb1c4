"""The signatures that other code relies on (docs/contracts.md)."""

from __future__ import annotations

import inspect
from dataclasses import fields

import pytest

from src.decoding import CTCBeamSearch, CTCGreedySearch, Hypothesis
from src.model import SpeechModel
from src.recognizer import Recognizer, Transcript


def parameters(function) -> str:
    return str(
        [
            f"{p.name}={p.default}" if p.default is not p.empty else p.name
            for p in inspect.signature(function).parameters.values()
        ]
    )


@pytest.mark.parametrize(
    "function,expected",
    [
        (
            CTCBeamSearch,
            [
                *("beam_size=16", "blank=0", "token_top_k=None", "token_min_log_prob=None", "scorers=()"),
                *("fold_sure=None", "compile=False"),
            ],
        ),
        (CTCGreedySearch, ["blank=0"]),
        (CTCBeamSearch.__call__, ["self", "log_probs", "lengths"]),
        (CTCGreedySearch.__call__, ["self", "log_probs", "lengths"]),
        (Recognizer.load, ["checkpoint_dir", "decoder=greedy", "device=auto", "overrides=None"]),
        (SpeechModel.encode, ["self", "features", "feature_lengths"]),
    ],
)
def test_signatures(function, expected):
    assert parameters(function) == str(expected)


def test_fields():
    assert {"tokens", "score", "parts", "token_times", "text"} <= {f.name for f in fields(Hypothesis)}
    assert [f.name for f in fields(Transcript)] == ["id", "text", "words", "hypotheses"]
