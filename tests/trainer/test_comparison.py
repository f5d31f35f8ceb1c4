"""Runs side by side: what the table says of each is what its folder says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from src.checkpoint import write_checkpoint
from src.lm import LSTMLanguageModel
from src.text_encoder import CharTextEncoder
from src.trainer.comparison import comparison_table, curves_figure
from src.utils.errors import UserError


class Buffered(LSTMLanguageModel):
    """With numbers that are no parameters, as the statistics of batch norm are."""

    def __init__(self, **settings) -> None:
        super().__init__(**settings)
        self.register_buffer("statistics", torch.zeros(1000))


def run(folder: Path, records: list[dict], last: int, dim: int) -> Path:
    """A run's folder with curves, a best checkpoint of step 7 and a last one."""
    text_encoder = CharTextEncoder()
    settings = {"vocab_size": text_encoder.vocab_size, "dim": dim, "num_layers": 1}
    config = {"model": {"_target_": "src.lm.neural.LSTMLanguageModel", **settings}, "decoders": {}}
    for pointer, step in (("best", 7), ("last", last)):
        checkpoint = folder / "checkpoints" / f"step-{step}"
        checkpoint.mkdir(parents=True, exist_ok=True)
        write_checkpoint(checkpoint, Buffered(**settings), config, text_encoder, "card")
        (folder / "checkpoints" / pointer).write_text(checkpoint.name)
    (folder / "scalars.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return folder


@pytest.fixture
def runs(tmp_path) -> list[Path]:
    scored = {"step": 12, "final/wer_greedy": 0.125, "final/cer_greedy": 0.03456, "final/wer_beam": 0.5}
    curve = [{"step": 3, "train/loss": 2.0}, {"step": 12, "train/loss": 1.0, "dev/wer_greedy": 0.25}]
    return [
        run(tmp_path / "a", [*curve, scored], last=12, dim=4),
        run(tmp_path / "without-a-dev-set", curve[:1], last=9, dim=2),
    ]


def test_a_line_for_each_run_and_a_dash_for_what_it_has_not(runs):
    head, *lines = comparison_table(runs).splitlines()
    assert head.startswith("run ") and len({len(line) for line in (head, *lines)}) == 1
    numbers = [
        sum(weight.numel() for weight in LSTMLanguageModel(29, dim=dim, num_layers=1).parameters())
        for dim in (4, 2)
    ]
    assert lines[0].split() == ["a", str(numbers[0]), "12", "12.50", "%", "3.46", "%"]
    assert lines[1].split() == ["without-a-dev-set", str(numbers[1]), "9", "-", "-"]


def test_steps_are_those_of_the_run_not_of_its_last_record(tmp_path):
    """A run of 4 steps that records every tenth one."""
    assert comparison_table([run(tmp_path / "short", [], last=4, dim=2)]).splitlines()[1].split()[2] == "4"


def test_the_picture_has_a_curve_for_each_run(runs):
    loss, wer = curves_figure(runs).axes
    assert [line.get_label() for line in loss.lines] == ["a", "without-a-dev-set"]
    assert loss.lines[0].get_xydata().tolist() == [[3, 2], [12, 1]]
    assert wer.lines[0].get_xydata().tolist() == [[12, 25]] and not len(wer.lines[1].get_xydata())


def test_a_folder_that_is_no_run_is_named(tmp_path):
    with pytest.raises(UserError, match="scalars.jsonl: missing"):
        comparison_table([tmp_path])
