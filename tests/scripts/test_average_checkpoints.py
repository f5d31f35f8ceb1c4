"""scripts/average_checkpoints.py: the mean of a run's checkpoints, as a checkpoint."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from scripts import average_checkpoints
from src.recognizer import Recognizer


@pytest.fixture
def average(monkeypatch):
    def call(*words) -> None:
        monkeypatch.setattr(sys, "argv", ["average_checkpoints.py", *map(str, words)])
        average_checkpoints.main()

    return call


def weights(directory) -> dict[str, torch.Tensor]:
    return load_file(directory / "model.safetensors")


@pytest.mark.parametrize("kind", ["last", "best"])
def test_the_average_is_the_mean_and_can_be_used(make_trainer, average, capsys, kind):
    trainer = make_trainer(
        "trainer.max_steps=5",
        "trainer.evaluate_every_steps=1",
        "trainer.monitor=loss",
        f"trainer.keep_{kind}=3",
        "optimizer.lr=0.1",
    )
    trainer.run()
    checkpoints = trainer.folder.checkpoints
    if kind == "best":
        names = list(trainer.ranking)
        assert len(names) == 3 and list(trainer.ranking.values()) == sorted(trainer.ranking.values())
    else:
        names = ["step-3", "step-4", "step-5"]
    average(trainer.folder.directory, f"--{kind}", 3)
    out = checkpoints / f"average-{kind}-3"
    assert f"checkpoint: {out}" in capsys.readouterr().out
    for name, value in weights(out).items():
        mean = torch.stack([weights(checkpoints / step)[name] for step in names]).mean(0)
        torch.testing.assert_close(value, mean)
    assert len(Recognizer.load(out, "greedy").transcribe([np.zeros(16000, np.float32)])) == 1


def test_too_few_checkpoints_and_the_wrong_folder_are_one_line(make_trainer, average, capsys, tmp_path):
    trainer = make_trainer("trainer.max_steps=2", "trainer.evaluate_every_epochs=null")
    trainer.run()
    capsys.readouterr()
    for words, said in (
        ([trainer.folder.directory, "--last", 5], "--last 5 of 1 checkpoints there; give 2 or more"),
        ([tmp_path / "nowhere", "--best", 2], "nowhere: no run's folder"),
    ):
        with pytest.raises(SystemExit) as stop:
            average(*words)
        error = capsys.readouterr().err
        assert stop.value.code == 2 and error.count("\n") == 1 and said in error


def test_a_folder_that_is_no_average_is_not_replaced(make_trainer, average, capsys):
    trainer = make_trainer("trainer.max_steps=2", "trainer.evaluate_every_steps=1", "trainer.keep_last=2")
    trainer.run()
    run = trainer.folder.directory
    for out in (run, run / "checkpoints", run / "checkpoints" / "step-2"):
        with pytest.raises(SystemExit):
            average(run, "--last", 2, "--out", out)
        assert "is there already and no average" in capsys.readouterr().err
    assert (run / "checkpoints" / "step-1").is_dir()
    for _ in range(2):  # an average is
        average(run, "--last", 2, "--out", run / "mean")
