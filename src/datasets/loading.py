"""From a config to recordings, and from prepared items to batches in worker processes."""

from __future__ import annotations

import atexit
import multiprocessing
import os
import signal
from functools import partial
from typing import Any

import torch
from omegaconf import DictConfig
from torch.utils.data import DataLoader

from src.datasets.collate import collate
from src.datasets.prepared import PreparedDataset
from src.datasets.samplers import BucketBatchSampler
from src.datasets.speech_dataset import SpeechDataset
from src.datasets.text_dataset import TextDataset
from src.utils.build import Whole, build, check
from src.utils.errors import UserError


def build_loader(prepared: PreparedDataset, sampler: BucketBatchSampler, num_workers: int = 0) -> DataLoader:
    """A loader whose workers live as long as it does and compute with one thread each."""
    check("num_workers", num_workers, Whole)
    end = multiprocessing.Event()
    if num_workers:
        atexit.register(end.set)
    return DataLoader(
        prepared,
        batch_sampler=sampler,
        collate_fn=collate,
        num_workers=num_workers,
        pin_memory=torch.cuda.is_available(),
        persistent_workers=num_workers > 0,
        worker_init_fn=partial(_leave_signals_to_the_parent, end),
    )


def _leave_signals_to_the_parent(end: Any, worker: int) -> None:
    """Ctrl-C and torchrun's SIGTERM reach a whole process group; only the parent knows how to stop well.

    Once ``end`` is set, its SIGTERM ends the worker: so the parent's interpreter gets rid of a worker whose loader
    something still holds, such as an error's traceback, and waits until it is gone.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0) if end.is_set() else None)


def recordings_of(config: DictConfig) -> SpeechDataset:
    """The data set ``datasets.SPLIT`` of a config. Raises ``UserError`` when it has none, or one of texts."""
    if config.datasets.get(config.split) is None:
        known = ", ".join(config.datasets)
        raise UserError(f"split={config.split} is not in this datasets config; choose one of: {known}")
    dataset = build(config.datasets[config.split])
    if not isinstance(dataset, SpeechDataset) or isinstance(dataset, TextDataset):
        kind = type(dataset).__name__
        raise UserError(f"split={config.split}: a {kind} has no recordings; choose another datasets=NAME")
    return dataset
