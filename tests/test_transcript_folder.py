"""A folder of transcripts: where a text may go, and which texts of an earlier run stay."""

from __future__ import annotations

import os

import pytest

from src.transcript_folder import TranscriptFolder
from src.utils.errors import UserError


@pytest.mark.parametrize(
    "utterance_id", ["../evil", "x/../../evil", "/tmp/evil", "linked/evil", "nul\0", "n" * 300]
)
def test_a_text_is_written_below_its_folder_or_not_at_all(tmp_path, utterance_id):
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "linked").symlink_to(tmp_path)
    with pytest.raises(UserError, match="its text cannot be written"):
        TranscriptFolder(folder).write(utterance_id, "text")
    assert not list(tmp_path.rglob("*.txt")) and not os.path.exists("/tmp/evil.txt")


def test_only_texts_made_from_the_same_thing_stay(tmp_path, capsys):
    texts = TranscriptFolder(tmp_path / "out")
    assert texts.claim({"a": "1", "b": "1", "c": "1"}, resume=True) == (["a", "b", "c"], {})
    for utterance_id in "ab":
        texts.write(utterance_id, utterance_id)
    assert texts.claim({"a": "1", "b": "2", "c": "1", "d": "1"}, resume=True) == (["b", "c", "d"], {})
    assert "1 texts in" in capsys.readouterr().out
    assert sorted(p.name for p in (tmp_path / "out").glob("*.txt")) == ["a.txt"]
    (tmp_path / "out" / ".origin").write_text("[1, 2")  # damaged: nothing is known of the texts
    assert texts.claim({"a": "1"}, resume=True) == (["a"], {})


def test_a_name_without_a_place_costs_the_others_nothing(tmp_path):
    wanted, refused = TranscriptFolder(tmp_path).claim({"../x": "1", "b": "1"}, resume=False)
    assert wanted == ["b"] and list(refused) == ["../x"]
