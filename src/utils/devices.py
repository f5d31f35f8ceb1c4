"""Which device and which number format to compute with."""

from __future__ import annotations

import os
import time

import torch

from src.utils.errors import UserError

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def choose_device(name: str = "auto") -> torch.device:
    """``auto`` is CUDA when there is one, else the CPU. Raises ``UserError`` for what this machine lacks."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and "LOCAL_RANK" in os.environ:  # one GPU for each process of torchrun
        name = f"cuda:{os.environ['LOCAL_RANK']}"
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError):
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise UserError(f"device={name} is unknown; choose auto, cpu or cuda")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"device={name}: this machine has no CUDA device; use device=cpu or device=auto")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(
            f"device={name}: this machine has {torch.cuda.device_count()} CUDA devices, from cuda:0 on"
        )
    return device


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """``auto``: bf16 on GPUs that compute it (sm_80 and above), fp16 on older ones (T4), fp32 on the CPU."""
    if name == "auto":
        if device.type != "cuda":
            name = "fp32"
        else:
            name = "bf16" if torch.cuda.get_device_capability(device) >= (8, 0) else "fp16"
    if name not in PRECISIONS:
        raise UserError(f"precision={name} is unknown; choose auto, {', '.join(PRECISIONS)}")
    if name == "fp16" and device.type != "cuda":
        raise UserError("precision=fp16 needs a GPU; use bf16 or fp32 on the CPU")
    return PRECISIONS[name]


def to_device(batch: dict, device: torch.device) -> dict:
    """The batch with its tensors on the device."""
    return {
        key: value.to(device, non_blocking=True) if isinstance(value, torch.Tensor) else value
        for key, value in batch.items()
    }


class ThreadTime:
    """``with thread_time: ...``: what share of its threads' time a process got in such blocks, as ``share``.

    Below 1 where other programs take the cores. Several threads then wait for the one that was left out, again and
    again, and one alone is faster.
    """

    def __init__(self) -> None:
        self.seconds = self.computed = 0.0

    def __enter__(self) -> None:
        self.seconds -= time.perf_counter()
        self.computed -= time.process_time()

    def __exit__(self, *_) -> None:
        self.seconds += time.perf_counter()
        self.computed += time.process_time()

    @property
    def share(self) -> float:
        return self.computed / (self.seconds * torch.get_num_threads())


def cores_are_free() -> bool:
    """Tries for a second whether this process's threads have the cores to themselves."""
    matrix, thread_time = torch.ones(256, 256), ThreadTime()
    while thread_time.seconds < 1:
        with thread_time:
            for _ in range(100):
                matrix @ matrix
    return thread_time.share > 0.8
