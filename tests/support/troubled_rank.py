"""train.py, but the second process has no memory for two clips at once, or its loss is NaN in the second step."""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import train
from src.trainer.optimization import Optimization
from src.trainer.step import TrainingStep

forward, run = TrainingStep.forward, Optimization.run
step_now = 0


def troubled(self, batch):
    mine = batch is not None and self.training and os.environ["RANK"] == "1"
    if mine and os.environ["TROUBLE"] == "memory" and len(batch["utterance_id"]) > 1:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
    losses, outputs = forward(self, batch)
    if mine and os.environ["TROUBLE"] == "nan" and step_now == 1:
        losses["loss_sum"] = losses["loss_sum"] * float("nan")
    return losses, outputs


def counted(self, group, number):
    global step_now
    step_now = number
    return run(self, group, number)


if __name__ == "__main__":
    TrainingStep.forward, Optimization.run = troubled, counted
    train.main()
