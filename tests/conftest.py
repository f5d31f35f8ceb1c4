"""Shared test setup: the repository root on the path, one thread, and a small trainer."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
sys.path.insert(0, str(ROOT / "tests"))
os.environ.setdefault("OMP_NUM_THREADS", "1")
torch.set_num_threads(1)

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
    """``make_trainer("key=value", ...)``: a small network on the clone's samples, each in ``tmp_path / "run"``."""
    from src.trainer import build_trainer
    from src.utils.hydra_door import compose

    def make(*overrides: str):
        return build_trainer(
            compose("one_batch", [*SMALL, f"save_dir={tmp_path}", "run_name=run", *overrides])
        )

    return make
