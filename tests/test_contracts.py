"""The signatures that other code relies on (docs/contracts.md)."""

from __future__ import annotations

import inspect
from dataclasses import fields

import pytest

from src.decoding import (
    AttentionBeamSearch,
    AttentionGreedySearch,
    CTCBeamSearch,
    CTCGreedySearch,
    Hypothesis,
    ParaformerBeamSearch,
    ParaformerGreedySearch,
    ParaformerSamplingSearch,
    SpeechLLMBeamSearch,
    SpeechLLMGreedySearch,
    SpeechLLMSamplingSearch,
    TransducerBeamSearch,
    TransducerGreedySearch,
)
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
        (AttentionGreedySearch, ["max_tokens_per_frame=1.0"]),
        (
            AttentionBeamSearch,
            [
                *(
                    "beam_size=8",
                    "ctc_weight=0.0",
                    "scorers=()",
                    "max_tokens_per_frame=1.0",
                    "beam_threshold=None",
                ),
                *("length_normalization=0.0", "coverage_weight=0.0", "end_threshold=None"),
            ],
        ),
        (AttentionGreedySearch.__call__, ["self", "model", "encoded", "encoded_lengths"]),
        (AttentionBeamSearch.__call__, ["self", "model", "encoded", "encoded_lengths"]),
        (SpeechLLMGreedySearch, ["max_tokens_per_frame=2.0", "max_repeats=10"]),
        (
            SpeechLLMBeamSearch,
            ["beam_size=4", "length_penalty=1.0", "max_tokens_per_frame=2.0", "max_repeats=10"],
        ),
        (
            SpeechLLMSamplingSearch,
            [
                *("samples=8", "temperature=1.0", "top_p=0.9", "seed=0"),
                *("max_tokens_per_frame=2.0", "max_repeats=10"),
            ],
        ),
        (SpeechLLMGreedySearch.__call__, ["self", "model", "projected", "projected_lengths"]),
        (TransducerGreedySearch.__call__, ["self", "model", "joint_encoded", "encoded_lengths"]),
        (TransducerBeamSearch.__call__, ["self", "model", "joint_encoded", "encoded_lengths"]),
        (ParaformerGreedySearch, []),
        (ParaformerBeamSearch, ["beam_size=8", "ctc_weight=0.0", "scorers=()"]),
        (ParaformerSamplingSearch, ["samples=8", "temperature=1.0", "top_p=0.9", "seed=0"]),
        (ParaformerGreedySearch.__call__, ["self", "model", "encoded", "encoded_lengths"]),
        (ParaformerBeamSearch.__call__, ["self", "model", "encoded", "encoded_lengths"]),
        (CTCBeamSearch.__call__, ["self", "log_probs", "lengths"]),
        (CTCGreedySearch.__call__, ["self", "log_probs", "lengths"]),
        (
            Recognizer.load,
            ["checkpoint_dir", "decoder=greedy", "device=auto", "overrides=None", "times_from=None"],
        ),
        (SpeechModel.encode, ["self", "features", "feature_lengths"]),
    ],
)
def test_signatures(function, expected):
    assert parameters(function) == str(expected)


def test_fields():
    assert {"tokens", "score", "parts", "token_times", "text"} <= {f.name for f in fields(Hypothesis)}
    assert [f.name for f in fields(Transcript)] == ["id", "text", "words", "hypotheses"]
