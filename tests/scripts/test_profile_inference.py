"""scripts/profile_inference.py: a table, a JSON and a picture."""

from __future__ import annotations

import json
import sys

import pytest

from scripts import profile_inference
from tests.conftest import ROOT

DEMO, SAMPLES = ROOT / "checkpoints" / "demo", ROOT / "samples"


@pytest.fixture
def show(monkeypatch):
    def call(*words: object) -> None:
        monkeypatch.setattr(sys, "argv", ["profile_inference.py", *map(str, words)])
        profile_inference.main()

    return call


def test_a_profile_of_the_demo(show, capsys, tmp_path):
    show(
        DEMO,
        SAMPLES,
        "--decoder",
        "beam",
        "--batch-size",
        3,
        "--device",
        "cpu",
        "--out",
        tmp_path / "a" / "b",
    )
    printed = capsys.readouterr().out
    assert sorted(path.name for path in (tmp_path / "a" / "b").iterdir()) == ["profile.json", "profile.png"]
    assert (tmp_path / "a" / "b" / "profile.png").read_bytes().startswith(b"\x89PNG")
    result = json.loads((tmp_path / "a" / "b" / "profile.json").read_text())
    assert (result["decoder"], result["data"], result["batches"]) == ("beam", "samples", 2)
    factor = f"real-time factor {result['real_time_factor']:.4f}"
    for words in [*result["stages"], *result["memory_bytes"], factor, str(tmp_path / "a" / "b")]:
        assert words in printed


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["nowhere", SAMPLES], "checkpoint nowhere does not exist"),
        ([DEMO, "nowhere"], "nowhere does not exist"),
        ([DEMO, SAMPLES, "--decoder", "bean"], "choose one of: beam"),
        ([DEMO, SAMPLES, "--batch-size", 0], "--batch-size 0: give at least 1"),
        ([DEMO, SAMPLES, "--out", "/dev/null/x"], "choose another --out"),
    ],
)
def test_mistakes_are_one_line(show, capsys, words, line):
    with pytest.raises(SystemExit) as stop:
        show(*words)
    error = capsys.readouterr().err.splitlines()
    assert stop.value.code == 2 and len(error) == 1 and error[0].startswith("error: ") and line in error[0]
