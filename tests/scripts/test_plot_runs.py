"""Curves of runs: what was not finite is left out, what is no record is named."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from scripts import plot_runs
from src.trainer.comparison import curve
from src.utils.errors import UserError

RECORDS = [
    {"step": 1, "train/loss": 3.0, "dev/wer_greedy": 1.0},
    {"step": 2, "train/loss": 2.0, "dev/wer_greedy": None},
]


def write_run(folder: Path, *more: str) -> Path:
    folder.mkdir()
    lines = [json.dumps(record) for record in RECORDS]
    (folder / "scalars.jsonl").write_text("\n".join([*lines, *more]) + "\n", encoding="utf-8")
    return folder


def test_a_picture_of_a_run_with_nulls(tmp_path: Path, monkeypatch) -> None:
    run = write_run(tmp_path / "run")
    assert curve(run, "dev/wer_greedy") == ([1], [1.0])
    monkeypatch.setattr(sys, "argv", ["plot_runs.py", str(run), "--out", str(tmp_path / "a/p.png")])
    plot_runs.main()
    assert (tmp_path / "a/p.png").stat().st_size > 1000


@pytest.mark.parametrize(
    "line", ['{"step": 3, "tra', "[1]", '{"train/loss": 1}', '{"step": 3, "train/loss": "x"}']
)
def test_a_line_that_is_no_record_is_named(tmp_path: Path, line: str) -> None:
    with pytest.raises(UserError, match=r"scalars\.jsonl:3: .* is no record"):
        curve(write_run(tmp_path / "run", line), "train/loss")


@pytest.mark.parametrize(
    "out,problem", [("p.abc", "no kind of picture"), ("run/scalars.jsonl/p.png", "cannot be")]
)
def test_a_picture_that_cannot_be_written(
    tmp_path: Path, monkeypatch, capsys, out: str, problem: str
) -> None:
    arguments = ["plot_runs.py", write_run(tmp_path / "run"), "--out", tmp_path / out]
    monkeypatch.setattr(sys, "argv", [str(argument) for argument in arguments])
    with pytest.raises(SystemExit) as stopped:
        plot_runs.main()
    message = capsys.readouterr().err
    assert stopped.value.code == 2 and message.startswith("error: --out") and problem in message
