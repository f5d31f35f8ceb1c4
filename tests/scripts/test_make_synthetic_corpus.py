"""Sizes that cannot be are refused before anything is made."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from scripts import make_synthetic_corpus


@pytest.mark.parametrize("option,value", [("--processes", "-1"), ("--voices", "0"), ("--hours", "nan")])
def test_a_size_that_cannot_be(tmp_path: Path, monkeypatch, capsys, option: str, value: str) -> None:
    size = [] if option == "--hours" else ["--utterances", "1"]
    arguments = ["make_synthetic_corpus.py", *size, f"{option}={value}", "--out", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit) as stopped:
        make_synthetic_corpus.main()
    assert stopped.value.code == 2 and not (tmp_path / "out").exists()
    assert capsys.readouterr().err == f"error: {option} {value}: must be above 0, and finite\n"
