"""scripts/profile_training.py: a table, a JSON and a picture."""

from __future__ import annotations

import json
import sys

import pytest

from scripts import profile_training
from tests.conftest import SMALL


@pytest.fixture
def show(monkeypatch):
    def call(*words: object) -> None:
        monkeypatch.setattr(sys, "argv", ["profile_training.py", *map(str, words)])
        profile_training.main()

    return call


def test_a_profile_of_a_config(show, capsys, tmp_path):
    odd = f"save_dir={tmp_path}/it's"  # as train.py takes it
    show("-cn", "one_batch", *SMALL, "--steps", 2, "--out", tmp_path / "a" / "b", odd)
    printed = capsys.readouterr().out
    assert sorted(path.name for path in (tmp_path / "a" / "b").iterdir()) == ["profile.json", "profile.png"]
    assert (tmp_path / "a" / "b" / "profile.png").read_bytes().startswith(b"\x89PNG")
    result = json.loads((tmp_path / "a" / "b" / "profile.json").read_text())
    assert result["config"] == "one_batch" and "model=mlp_ctc" in result["overrides"] and result["steps"] == 2
    for name in [*result["stages"], *result["memory_bytes"], "GPU idle: unknown", str(tmp_path / "a" / "b")]:
        assert name in printed
    assert [path.name for path in tmp_path.iterdir()] == ["a"]  # no run was begun


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["-cn=one_bach"], "one_bach"),
        (["-cn=one_batch", "trainer.clip_nrom=1"], "did you mean trainer.clip_norm?"),
        (["-cn=one_batch", "datasets.train.data_dir=nowhere"], "nowhere"),
        (["-cn=one_batch", *SMALL, "~datasets.dev", "--steps", "1", "--out", "/dev/null/x"], "another --out"),
        (
            ["-cn=lm", "datasets.train.texts=README.md", "datasets.dev.texts=README.md"],
            "only steps of recognisers",
        ),
        (["-cn=one_batch", *SMALL, "--steps", "0"], "--steps 0: give at least 1"),
        (["-cn=one_batch", *SMALL, "--steps", "1", "--out", "/dev/null/x"], "choose another --out"),
    ],
)
def test_mistakes_are_one_line(show, capsys, words, line):
    with pytest.raises(SystemExit) as stop:
        show(*words)
    error = [each for each in capsys.readouterr().err.splitlines() if not each.startswith(("\r", "profile:"))]
    assert stop.value.code == 2 and error[-1].startswith("error: ") and line in error[-1]
    assert "Traceback" not in " ".join(error)
