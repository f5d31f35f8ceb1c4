"""Common Voice's tables."""

from __future__ import annotations

import pytest

from src.datasets import CommonVoiceDataset
from src.utils.errors import UserError

HEADER = "client_id\tpath\tsentence_id\tsentence\tup_votes\n"


@pytest.fixture
def corpus(tmp_path, write_tone):
    home = tmp_path / "cv-corpus-21.0" / "en"
    for n in range(3):
        write_tone(home / f"clips/common_voice_en_{n}.mp3", 0.5, rate=32000)
    (home / "train.tsv").write_text(
        HEADER + 'ann\tcommon_voice_en_0.mp3\tx\t"Stop, she said.\t2\n'
        "bob\tcommon_voice_en_1\tx\tIt’s\u2028late.\t2\n"
        "bob\tcommon_voice_en_9.mp3\tx\tNo clip\t2\n",
        encoding="utf-8",
    )
    return tmp_path


def test_a_split(corpus) -> None:
    dataset = CommonVoiceDataset(corpus)
    assert dataset.ids == ["common_voice_en_0", "common_voice_en_1"]
    assert dataset.texts[0] == '"Stop, she said.' and dataset.texts[1].startswith("It’s")
    assert dataset[1].speaker == "bob" and abs(len(dataset[1].audio) - 8000) < 50
    assert [item.id for item in dataset.skipped] == ["common_voice_en_9"]
    assert CommonVoiceDataset(corpus, limit=1).ids == ["common_voice_en_0"]


def test_stated_durations_are_used(corpus) -> None:
    home = corpus / "cv-corpus-21.0/en"
    (home / "clip_durations.tsv").write_text("clip\tduration[ms]\ncommon_voice_en_0.mp3\t7500\n")
    assert CommonVoiceDataset(home).durations.tolist() == pytest.approx([7.5, 0.5], abs=0.01)


def test_errors(corpus) -> None:
    with pytest.raises(UserError, match=r"no test\.tsv beside clips/"):
        CommonVoiceDataset(corpus, "test")
    home = corpus / "cv-corpus-21.0/en"
    (home / "test.tsv").write_text("client_id\tsentence\nann\thello\n")
    with pytest.raises(UserError, match=r"test\.tsv:1: no column 'path'"):
        CommonVoiceDataset(corpus, "test")
    (home / "dev.tsv").write_text(HEADER + "ann\tcommon_voice_en_0.mp3\n")
    with pytest.raises(UserError, match=r"dev\.tsv:2: too few"):
        CommonVoiceDataset(corpus, "dev")


@pytest.mark.parametrize(
    "stated,problem", [("abc", "duration 'abc'"), ("-1", "duration"), ("1" * 200_000, "field")]
)
def test_a_bad_line_is_named(corpus, stated, problem) -> None:
    home = corpus / "cv-corpus-21.0/en"
    (home / "clip_durations.tsv").write_text(f"clip\tduration[ms]\na.mp3\t7500\nb.mp3\t{stated}\n")
    with pytest.raises(UserError, match=rf"clip_durations\.tsv:3: .*{problem}"):
        CommonVoiceDataset(home)


@pytest.mark.parametrize("path", ["a\0b.mp3", "x" * 201, ""])
def test_a_path_that_cannot_be_an_id_is_named(corpus, path) -> None:
    with (corpus / "cv-corpus-21.0/en/train.tsv").open("a") as file:
        file.write(f"ann\t{path}\tx\thello\t2\n")
    with pytest.raises(
        UserError, match=r"train\.tsv: not UTF-8 .it holds NUL" if "\0" in path else r"train\.tsv:5: "
    ):
        CommonVoiceDataset(corpus)


def test_a_clip_that_is_listed_twice_is_used_once(corpus) -> None:
    with (corpus / "cv-corpus-21.0/en/train.tsv").open("a") as file:
        file.write("ann\tcommon_voice_en_0.mp3\tx\thello\t2\n")
    dataset = CommonVoiceDataset(corpus)
    assert dataset.ids == ["common_voice_en_0", "common_voice_en_1"]
    assert "listed again" in dataset.skipped[0].reason
