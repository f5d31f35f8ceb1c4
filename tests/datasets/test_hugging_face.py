"""Objects of the `datasets` library: bytes, paths, raw arrays, and what is wrong with them."""

from __future__ import annotations

import pickle
import sys

import numpy as np
import pytest

from src.datasets import HuggingFaceDataset
from src.utils.errors import UserError

datasets = pytest.importorskip("datasets")


@pytest.fixture(autouse=True)
def offline(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


@pytest.fixture
def table(tmp_path, write_tone):
    contents = [write_tone(tmp_path / f"{n}.flac", 0.1 * n, rate=8000).read_bytes() for n in (1, 2, 3)]
    audio = [{"bytes": content, "path": None} for content in contents]
    audio[2] = {"bytes": None, "path": str(tmp_path / "3.flac")}
    columns = {"audio": audio, "text": ["One", None, ""], "name": ["a/x", "b", "c"], "speaker": [1, 2, 2]}
    return datasets.Dataset.from_dict(columns).cast_column("audio", datasets.Audio(decode=False))


def test_bytes_and_paths(table) -> None:
    decoding = table.cast_column("audio", datasets.Audio(sampling_rate=16000))
    dataset = HuggingFaceDataset.from_object(decoding, id_column="name", speaker_column="speaker")
    assert dataset.ids == ["a/x", "b", "c"] and dataset.texts == ["One", None, ""]
    assert np.allclose(dataset.durations, [0.1, 0.2, 0.3])
    assert [dataset[row].audio.shape for row in range(3)] == [(1600,), (3200,), (4800,)]
    assert dataset[0].speaker == "1"
    assert HuggingFaceDataset.from_object(table, min_duration_s=0.15, limit=1).ids == ["00000001"]


def test_broken_bytes_are_skipped(table) -> None:
    rows = [*table, {"audio": {"bytes": b"garbage", "path": None}, "text": "x", "name": "d", "speaker": 0}]
    rows.append({"audio": {"bytes": None, "path": None}, "text": "x", "name": "e", "speaker": 0})
    dataset = HuggingFaceDataset.from_object(datasets.Dataset.from_list(rows), id_column="name")
    assert len(dataset) == 3 and [item.id for item in dataset.skipped] == ["d", "e"]
    assert "#3" in dataset.skipped[0].reason and "neither bytes" in dataset.skipped[1].reason


def test_raw_arrays(tmp_path) -> None:
    stereo = [np.linspace(0, 0.5, 800).tolist(), np.zeros(800).tolist()]
    for array in (stereo, np.array(stereo).T.tolist()):
        rows = datasets.Dataset.from_dict({"sound": [{"array": array, "sampling_rate": 16000}]})
        dataset = HuggingFaceDataset.from_object(rows, audio_column="sound", text_column=None)
        assert dataset.texts == [None] and dataset.durations.tolist() == [0.05]
        assert np.allclose(dataset[0].audio, np.linspace(0, 0.25, 800), atol=1e-6)
    rows = datasets.Dataset.from_dict({"audio": [{"array": np.ones(800).tolist(), "sampling_rate": 8000}]})
    assert HuggingFaceDataset.from_object(rows, text_column=None)[0].audio.shape == (1600,)


def test_saved_folders(table, tmp_path) -> None:
    table.save_to_disk(tmp_path / "one")
    datasets.DatasetDict({"train": table}).save_to_disk(tmp_path / "several")
    (tmp_path / "parquet").mkdir()
    table.to_parquet(tmp_path / "parquet/train.parquet")
    for folder in ("one", "several", "parquet"):
        dataset = HuggingFaceDataset(str(tmp_path / folder), "train", id_column="name")
        assert dataset.ids == ["a/x", "b", "c"] and dataset[1].audio.shape == (3200,)


def test_it_pickles(table) -> None:
    copy = pickle.loads(pickle.dumps(HuggingFaceDataset.from_object(table).select([1])))
    assert copy.ids == ["00000001"] and copy[0].audio.shape == (3200,)


def test_errors(table, tmp_path, monkeypatch) -> None:
    with pytest.raises(UserError, match="no column 'transcript'.*audio, text, name"):
        HuggingFaceDataset.from_object(table, text_column="transcript")
    with pytest.raises(UserError, match="'speaker' holds a value twice"):
        HuggingFaceDataset.from_object(table, id_column="speaker")
    escaping = table.remove_columns("name").add_column("name", ["a", "../b", "c"])
    with pytest.raises(UserError, match="cannot name a file"):
        HuggingFaceDataset.from_object(escaping, id_column="name")
    with pytest.raises(UserError, match="is no datasets.Dataset"):
        HuggingFaceDataset.from_object(table.to_iterable_dataset())
    with pytest.raises(UserError, match="nothing.*cannot be loaded"):
        HuggingFaceDataset(str(tmp_path / "nothing"), "train")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match="pip install datasets"):
        HuggingFaceDataset("owner/name", "train")
