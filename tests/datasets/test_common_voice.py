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
