"""A trainer of a small network on the clone's five samples, in this process."""

from __future__ import annotations

from pathlib import Path

import pytest

from src.trainer import Trainer, build_trainer
from src.utils.hydra_door import compose

ROOT = Path(__file__).resolve().parents[2]
SMALL = [
    f"datasets.train.data_dir={ROOT / 'samples'}",
    "model=mlp_ctc",
    "model.encoder.dim=32",
    "model.encoder.num_layers=1",
    "~decoders.beam",
    "writer=none",
    "trainer.device=cpu",
    "trainer.log_every_steps=1",
]


@pytest.fixture
def make_trainer(tmp_path):
    """``make_trainer("key=value", ...)``: every one has the same run folder, ``tmp_path / "run"``."""

    def make(*overrides: str) -> Trainer:
        return build_trainer(
            compose("one_batch", [*SMALL, f"save_dir={tmp_path}", "run_name=run", *overrides])
        )

    return make
