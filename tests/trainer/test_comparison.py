"""Runs side by side: what the table says of each is what its folder says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from src.trainer.comparison import comparison_table, curves_figure
from src.utils.errors import UserError


def run(folder: Path, records: list[dict], **weights: torch.Tensor) -> Path:
    """A run's folder with curves, and a best checkpoint of these weights."""
    checkpoint = folder / "checkpoints" / "step-7"
    checkpoint.mkdir(parents=True)
    save_file(weights, checkpoint / "model.safetensors")
    (checkpoint / "config.yaml").write_text("model: {}\n")
    for pointer in ("best", "last"):
        (folder / "checkpoints" / pointer).write_text("step-7")
    (folder / "scalars.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return folder


@pytest.fixture
def runs(tmp_path) -> list[Path]:
    scored = {"step": 12, "final/wer_greedy": 0.125, "final/cer_greedy": 0.03456, "final/wer_beam": 0.5}
    curve = [{"step": 3, "train/loss": 2.0}, {"step": 12, "train/loss": 1.0, "dev/wer_greedy": 0.25}]
    return [
        run(tmp_path / "a", [*curve, scored], one=torch.zeros(100, 20), two=torch.zeros(7)),
        run(tmp_path / "without-a-dev-set", curve[:1], one=torch.zeros(3)),
    ]


def test_a_line_for_each_run_and_a_dash_for_what_it_has_not(runs):
    head, *lines = comparison_table(runs).splitlines()
    assert head.startswith("run ") and len({len(line) for line in (head, *lines)}) == 1
    assert lines[0].split() == ["a", "2,007", "12", "12.50", "%", "3.46", "%"]
    assert lines[1].split() == ["without-a-dev-set", "3", "3", "-", "-"]


def test_the_picture_has_a_curve_for_each_run(runs):
    loss, wer = curves_figure(runs).axes
    assert [line.get_label() for line in loss.lines] == ["a", "without-a-dev-set"]
    assert loss.lines[0].get_xydata().tolist() == [[3, 2], [12, 1]]
    assert wer.lines[0].get_xydata().tolist() == [[12, 25]] and not len(wer.lines[1].get_xydata())


def test_a_folder_that_is_no_run_is_named(tmp_path):
    with pytest.raises(UserError, match="scalars.jsonl: missing"):
        comparison_table([tmp_path])
