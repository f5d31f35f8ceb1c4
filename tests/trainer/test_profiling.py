"""Stages and memory of training steps."""

from __future__ import annotations

import itertools
import json
from types import SimpleNamespace

import pytest
import torch

from src.trainer import build_trainer, profiling
from src.trainer.profiling import profile
from src.utils.hydra_door import compose
from tests.conftest import ROOT

AROUND = {
    *("waiting for the loader", "copying", "frontend", "SpecAugment", "encoder: rest", "head", "loss"),
    *("backward", "gradient norm and clipping", "optimizer", "EMA", "rest"),
}
CONFORMER = ["model=conformer_ctc_tiny", "model.encoder.num_layers=2"]
DEEPSPEECH2 = [
    "model=deepspeech2_ctc",
    *(f"model.encoder.{size}" for size in ("hidden_dim=8", "num_layers=1", "channels=1")),
]
CONFORMER_PARTS = {"subsampling", "attention", "convolution", "feed-forward"}


@pytest.fixture
def ticks(monkeypatch):
    """A clock that moves on by one second whenever somebody looks."""
    monkeypatch.setattr(profiling, "time", SimpleNamespace(perf_counter=itertools.count().__next__))


def test_the_idle_share_of_a_gpu_is_what_kernels_leave_of_the_time(monkeypatch, ticks):
    def event(start: float, end: float, device: str = "CUDA", note: bool = False) -> SimpleNamespace:
        kind = getattr(torch.autograd.DeviceType, device)
        span = SimpleNamespace(start=start, end=end)
        return SimpleNamespace(time_range=span, device_type=kind, is_user_annotation=note)

    kernels = [event(0, 2e5), event(1e5, 3e5), event(0, 9e5, note=True), event(0, 9e5, "CPU")]

    class Recorder:
        def __init__(self, **_) -> None: ...
        def __enter__(self):
            return self

        def __exit__(self, *_) -> None: ...
        def events(self) -> list:
            return kernels

    monkeypatch.setattr(torch.profiler, "profile", Recorder)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    steps = []
    share, why_not = profiling._idle_share(torch.device("cuda"), lambda: steps.append(1))
    assert share == pytest.approx(0.7) and why_not is None and len(steps) == profiling.IDLE_STEPS
    kernels.clear()
    assert profiling._idle_share(torch.device("cuda"), list)[0] is None


@pytest.mark.parametrize(
    ("model", "parts"),
    [
        (CONFORMER, CONFORMER_PARTS),
        ([*CONFORMER, "+model.encoder.checkpoint_activations=true"], CONFORMER_PARTS),
        (DEEPSPEECH2, {"convolution", "recurrent"}),
    ],
    ids=["conformer", "conformer, checkpointed", "deepspeech2"],
)
def test_every_stage_is_there_and_they_fill_the_time(tmp_path, model, parts):
    run = [f"datasets.train.data_dir={ROOT / 'samples'}", "datasets.dev=null", f"save_dir={tmp_path}"]
    settings = [
        "transforms=spec_augment",
        "trainer.ema_decay=0.9",
        "batching.batch_size=2",
        "trainer.device=cpu",
    ]
    trainer = build_trainer(compose("one_batch", [*model, *run, *settings, "trainer.accumulate=2"]))
    result = profile(trainer, steps=2)
    stages = result["stages"]
    assert set(stages) == AROUND | {f"encoder: {part}" for part in parts}
    assert all(stage["s_per_step"] > 0 for stage in stages.values())
    assert sum(2 * stage["s_per_step"] for stage in stages.values()) <= result["wall_s"] + 1e-9
    assert json.loads(json.dumps(result)) == result
    assert 0 < result["audio_s_per_s"] < result["audio_s_per_s_without_the_loader"]
    assert result["audio_s_per_s_of_the_loader_alone"] > 0 and 0 < result["padding_share"] < 1
    assert result["gpu_idle_share"] is None and "GPU only" in result["gpu_idle_unknown_because"]


def test_memory_by_part_is_what_the_parts_hold(make_trainer):
    trainer = make_trainer("trainer.ema_decay=0.9", "datasets.dev=null", "optimizer.fused=false")
    memory = profile(trainer, steps=1)["memory_bytes"]
    size = 4 * sum(p.numel() for p in trainer.step.parameters())
    assert memory["gradients"] == memory["EMA"] == size
    assert memory["weights"] == size + sum(buffer.nbytes for buffer in trainer.step.buffers())
    assert memory["optimizer state"] == 2 * size + 4 * len(list(trainer.step.parameters()))
    assert 0 < memory["activations saved for backward"] < memory["peak"]


def test_without_averages_and_masks_their_stages_take_no_time(make_trainer):
    result = profile(make_trainer("datasets.dev=null"), steps=1)
    assert result["stages"]["EMA"]["share"] == result["stages"]["SpecAugment"]["share"] == 0
    assert result["memory_bytes"]["EMA"] == 0
