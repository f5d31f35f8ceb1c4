"""LibriSpeech's tree, as OpenSLR packs it and with the nesting of copies."""

from __future__ import annotations

import pytest

from src.datasets import LibriSpeechDataset
from src.utils.errors import UserError


@pytest.fixture
def write_part(write_tone):
    def write(folder, speakers: int = 2, first: int = 1) -> None:
        for s in range(first, first + speakers):
            chapter = folder / f"{s}0" / "77"
            for n in range(2):
                write_tone(chapter / f"{s}0-77-000{n}.flac", 0.1 * s)
            lines = [f"{s}0-77-000{n} IT'S LINE {'AB'[n]}\n" for n in range(2)]
            (chapter / f"{s}0-77.trans.txt").write_text("".join(lines))

    return write


@pytest.mark.parametrize(
    "above", ["", "LibriSpeech", "dev-clean", "librispeech-clean/LibriSpeech", "dev-clean/LibriSpeech"]
)
def test_the_part_is_found_however_it_is_nested(tmp_path, write_part, above) -> None:
    write_part(tmp_path / above / "dev-clean")
    dataset = LibriSpeechDataset(tmp_path, "dev-clean")
    assert dataset.ids == ["10-77-0000", "10-77-0001", "20-77-0000", "20-77-0001"]
    assert dataset.texts[:2] == ["IT'S LINE A", "IT'S LINE B"]
    assert dataset[3].speaker == "20" and dataset[3].audio.shape == (3200,)


def test_several_parts_and_limits(tmp_path, write_part) -> None:
    write_part(tmp_path / "LibriSpeech/dev-clean", 1)
    write_part(tmp_path / "LibriSpeech/dev-other", 2, first=2)
    dataset = LibriSpeechDataset(tmp_path, parts=["dev-other", "dev-clean"], max_duration_s=0.25)
    assert len(dataset) == 4 and dataset.out_of_range == 2
    assert (
        LibriSpeechDataset(tmp_path / "LibriSpeech/dev-other", ["dev-other"], limit=3).ids[-1] == "30-77-0000"
    )


def test_an_id_of_another_part_belongs_to_the_first(tmp_path, write_part) -> None:
    for part in ("dev-clean", "dev-other"):
        write_part(tmp_path / part, 1)
    dataset = LibriSpeechDataset(tmp_path, ["dev-clean", "dev-other"])
    assert dataset.ids == ["10-77-0000", "10-77-0001"] and all(
        "dev-clean" in e for e in dataset.index.column("path")
    )
    assert ["has the same id" in item.reason for item in dataset.skipped] == [True, True]


def test_lines_and_recordings_that_miss_each_other_are_named(tmp_path, write_part, write_tone) -> None:
    write_part(tmp_path / "dev-clean", 1)
    (tmp_path / "dev-clean/10/77/10-77-0000.flac").unlink()
    write_tone(tmp_path / "dev-clean/10/77/10-77-0009.flac")
    dataset = LibriSpeechDataset(tmp_path, "dev-clean")
    assert dataset.ids == ["10-77-0001"]
    reasons = {item.id: item.reason for item in dataset.skipped}
    assert "no recording" in reasons["10-77-0000"] and "no line" in reasons["10-77-0009"]


def test_a_part_that_is_not_there(tmp_path, write_part) -> None:
    write_part(tmp_path / "a/b/c/d/dev-clean")
    (tmp_path / "test-clean").mkdir()
    for part in ("dev-clean", "test-clean"):
        with pytest.raises(UserError, match=f"no {part}/.*download_librispeech.py {part}"):
            LibriSpeechDataset(tmp_path, part)


def test_a_part_that_is_named_twice_is_read_once(tmp_path, write_part) -> None:
    write_part(tmp_path / "dev-clean", 1)
    assert LibriSpeechDataset(tmp_path, ["dev-clean", "dev-clean"]).ids == ["10-77-0000", "10-77-0001"]


def test_a_bad_byte_costs_its_chapter_only(tmp_path, write_part) -> None:
    write_part(tmp_path / "dev-clean", 2)
    (tmp_path / "dev-clean/10/77/10-77.trans.txt").write_bytes(b"10-77-0000 \xff\n")
    dataset = LibriSpeechDataset(tmp_path, "dev-clean")
    assert dataset.ids == ["20-77-0000", "20-77-0001"]
    assert [item.id for item in dataset.skipped] == ["10-77-0000", "10-77-0001"]
    assert all("10-77.trans.txt: not UTF-8" in item.reason for item in dataset.skipped)
