"""Mixtures of corpora: weights, ids, limits."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from src.datasets import Entry, MixtureDataset, PreparedDataset, Skipped, SpeechDataset
from src.utils.errors import UserError


def corpus(count: int, seconds: float = 1.0, skipped=()) -> SpeechDataset:
    entries = [Entry(f"{n}", f"{n}.wav", f"text {n}", "ann", seconds + n) for n in range(count)]
    return SpeechDataset(entries, skipped)


def test_weights_repeat_and_draw() -> None:
    mixture = MixtureDataset({"a": corpus(10), "b": corpus(4), "c": corpus(3)}, {"a": 0.5, "b": 2.25, "c": 0})
    ids = mixture.ids
    counts = {
        prefix: sum(i.startswith(f"{prefix}/") for i in ids) for prefix in ("a", "b", "b~2", "b~3", "c")
    }
    assert (
        counts == {"a": 5, "b": 4, "b~2": 4, "b~3": 1, "c": 0}
        and len(set(ids)) == len(ids) == len(mixture) == 14
    )
    again = MixtureDataset({"b": corpus(4), "a": corpus(10)}, {"a": 0.5, "b": 2.25})
    assert sorted(again.ids) == sorted(ids)  # neither the order nor other corpora change what is drawn
    assert sorted(MixtureDataset({"a": corpus(10)}, {"a": 0.5}, seed=1).ids) != sorted(ids)[:5]


def test_rows_agree_with_the_columns() -> None:
    mixture = MixtureDataset({"a": corpus(3), "b": corpus(2, 10.0)}, {"a": 1.5})
    entries = [mixture.entry(row) for row in range(len(mixture))]
    assert [e.id for e in entries] == mixture.ids and [e.text for e in entries] == mixture.texts
    assert np.allclose([e.duration_s for e in entries], mixture.durations)
    assert entries[-1] == Entry("b/1", "1.wav", "text 1", "b/ann", 11.0)
    some = mixture.select([4, 0])
    assert some.ids == [mixture.ids[4], mixture.ids[0]] and np.allclose(
        some.durations, mixture.durations[[4, 0]]
    )
    assert pickle.loads(pickle.dumps(some)).ids == some.ids


def test_limits() -> None:
    parts = {"a": corpus(20), "b": corpus(20)}
    limited = MixtureDataset(parts, limit=12)
    assert len(limited) == 12 and {i[0] for i in limited.ids} == {"a", "b"}
    assert limited.ids == MixtureDataset(parts, limit=12).ids
    bounded = MixtureDataset(parts, min_duration_s=2, max_duration_s=3)
    assert bounded.ids == ["a/1", "a/2", "b/1", "b/2"] and bounded.out_of_range == 36


def test_audio_comes_from_the_corpus_and_each_copy_has_its_own_randomness(tmp_path, write_tone) -> None:
    path = str(write_tone(tmp_path / "x.wav", 0.2))
    own = SpeechDataset([Entry("x", path), Entry("gone", str(tmp_path / "gone.wav"), duration_s=1.0)])
    mixture = MixtureDataset({"own": own}, {"own": 2})
    assert mixture[0].audio.shape == (3200,) and mixture[2].id == "own~2/x"
    prepared = PreparedDataset(mixture, augmentations=lambda audio, rng: audio + np.float32(rng.normal()))
    assert abs(float(prepared[0]["audio"][0] - prepared[2]["audio"][0])) > 1e-6
    missing = prepared[1]
    assert isinstance(missing, Skipped) and missing.id == "own/gone"


def test_skipped_and_nested_mixtures() -> None:
    inner = MixtureDataset({"a": corpus(2, skipped=[Skipped("bad", "bad.wav", "broken")])})
    outer = MixtureDataset({"all": inner, "off": None})
    assert outer.ids == ["all/a/0", "all/a/1"] and outer.skipped == [
        Skipped("all/a/bad", "bad.wav", "broken")
    ]


@pytest.mark.parametrize(
    "names,weights,problem",
    [
        ([], {}, "no data sets"),
        (["a/b"], {}, "prefix of an id"),
        (["a~2"], {}, "prefix of an id"),
        (["a"], {"b": 1.0}, "weights names 'b'.*: a"),
        (["a"], {"a": -1}, "weight -1 of 'a'"),
        (["a"], {"a": "much"}, "weight 'much'"),
    ],
)
def test_errors(names, weights, problem) -> None:
    with pytest.raises(UserError, match=problem):
        MixtureDataset({name: corpus(1) for name in names}, weights)
