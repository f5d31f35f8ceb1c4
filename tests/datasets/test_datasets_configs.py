"""The YAMLs of data sets build what they say, with the overrides that a user would write."""

from __future__ import annotations

import pytest

from src.datasets import Entry, MixtureDataset
from src.utils.build import build
from src.utils.errors import UserError
from src.utils.hydra_door import compose


def part(name: str, split: str, *overrides: str):
    return build(compose("conformer_ctc", [f"datasets={name}", *overrides]).datasets[split])


def test_librispeech(tmp_path, write_tone) -> None:
    folders = (
        "train-clean-100",
        "train-clean-360",
        "train-other-500",
        "dev-clean",
        "dev-other",
        "test-clean",
        "test-other",
    )
    for number, folder in enumerate(folders):
        speaker = str(100 + number)
        chapter = tmp_path / "LibriSpeech" / folder / speaker / "1"
        write_tone(chapter / f"{speaker}-1-0000.flac")
        (chapter / f"{speaker}-1.trans.txt").write_text(f"{speaker}-1-0000 {folder.upper()}\n")
    for name, expected in {
        "librispeech": {"train": 3, "dev": 2, "test": 1, "test_clean": 1},
        "librispeech_100": {"train": 1, "dev": 2, "test": 1, "test_clean": 1},
    }.items():
        found = {split: part(name, split, f"datasets.{split}.root={tmp_path}") for split in expected}
        assert {split: len(dataset) for split, dataset in found.items()} == expected
        assert found["test"].texts == ["TEST-OTHER"] and "TRAIN-CLEAN-100" in found["train"].texts


def test_mixture(tmp_path, write_tone) -> None:
    write_tone(tmp_path / "own/audio/a.wav")
    write_tone(tmp_path / "more.wav")
    (tmp_path / "more.tsv").write_text("more.wav\thello\n")
    dataset = part(
        "mixture",
        "train",
        f"datasets.train.datasets.own.data_dir={tmp_path / 'own'}",
        "datasets.train.datasets.librispeech=null",
        "+datasets.train.datasets.more._target_=src.datasets.ManifestDataset",
        f"+datasets.train.datasets.more.path={tmp_path / 'more.tsv'}",
        "datasets.train.weights.own=3",
    )
    assert isinstance(dataset, MixtureDataset)
    assert dataset.ids == ["own/a", "own~2/a", "own~3/a", "more/more"] and isinstance(dataset.entry(3), Entry)


@pytest.mark.parametrize("name", ["an4", "librispeech", "common_voice", "manifest", "shards"])
def test_a_corpus_that_is_not_there_is_one_line(name, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="data/"):
        part(name, "train")


def test_limits_reach_every_data_set(tmp_path, write_tone) -> None:
    for n in (1, 2, 3):
        write_tone(tmp_path / f"{n}.wav", 0.1 * n)
    (tmp_path / "m.tsv").write_text("".join(f"{n}.wav\tx\n" for n in (1, 2, 3)))
    overrides = [
        f"datasets.train.path={tmp_path / 'm.tsv'}",
        "+datasets.train.limit=1",
        "+datasets.train.min_duration_s=0.15",
    ]
    assert part("manifest", "train", *overrides).ids == ["2"]
