"""From a composed training config to a Trainer: the one place where the parts of a run meet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn

from src.datasets import BucketBatchSampler, PreparedDataset, SpeechDataset, build_loader
from src.logger import Writers
from src.trainer.options import TrainerOptions
from src.trainer.step import TrainingStep
from src.trainer.trainer import Trainer
from src.utils.build import build
from src.utils.errors import UserError
from src.utils.safe_build import safe_build


def build_trainer(config: DictConfig) -> Trainer:
    """Builds every part that ``src/configs/base.yaml`` lists. Raises ``UserError`` for parts that do not fit."""
    torch.manual_seed(config.seed)
    text_encoder = build(config.text_encoder)
    model_config = {
        **OmegaConf.to_container(config.model, resolve=True),
        "vocab_size": text_encoder.vocab_size,
    }
    # Built as a checkpoint will be: a model that could not be loaded again fails now, not after training.
    model = safe_build(model_config, "model")
    spec_augment = build(config.transforms.spec_augment)

    if config.datasets.get("train") is None:
        raise UserError("this datasets config has no training set; choose another with datasets=NAME")
    train = PreparedDataset(
        build(config.datasets.train),
        text_encoder,
        augmentations=build(config.transforms.waveform),
        seed=config.seed,
        spec_draws=spec_augment.draws_per_utterance if spec_augment else 0,
    )
    if not len(train):
        out = f"{train.dataset.out_of_range} out of the duration limits, {len(train.dataset.skipped)} unreadable"
        raise UserError(f"no training clips are left ({out}); check datasets.train")
    sampler = BucketBatchSampler(train.dataset.durations, **config.batching, shuffle=True, seed=config.seed)
    train_loader = build_loader(train, sampler, config.num_workers)
    dev_loader = None
    if config.datasets.get("dev") is not None:
        dev = PreparedDataset(build(config.datasets.dev), text_encoder)
        dev_sampler = BucketBatchSampler(dev.dataset.durations, **config.batching, shuffle=False)
        dev_loader = build_loader(dev, dev_sampler, config.num_workers)

    optimizer = build(config.optimizer, _decayed_groups(model, config.optimizer.get("weight_decay", 0.0)))
    return Trainer(
        step=TrainingStep(model, build(config.objective), spec_augment),
        text_encoder=text_encoder,
        searches=safe_build(OmegaConf.to_container(config.decoders, resolve=True), "decoders"),
        optimizer=optimizer,
        make_scheduler=lambda total: build(config.lr_scheduler, optimizer, total_steps=total),
        train_loader=train_loader,
        dev_loader=dev_loader,
        writers=Writers(list(build(config.writer).values())),
        run_dir=Path(config.save_dir) / config.run_name,
        config=_shared_config(config, model_config, train.dataset),
        options=TrainerOptions(**config.trainer),
        seed=config.seed,
    )


def _shared_config(
    config: DictConfig, model_config: dict[str, Any], dataset: SpeechDataset
) -> dict[str, Any]:
    """What goes into a checkpoint's ``config.yaml``: what rebuilds it, and settings without local paths."""
    settings = {
        name: OmegaConf.to_container(config[name], resolve=True)
        for name in ("trainer", "optimizer", "lr_scheduler", "objective", "batching")
    }
    settings["trainer"] = {
        k: v for k, v in settings["trainer"].items() if k not in ("resume_from", "init_from", "device")
    }
    kind = type(dataset).__name__.removesuffix("Dataset")
    data = f"{kind} {dataset.name}, {len(dataset)} clips, {dataset.durations.sum() / 3600:.1f} h"
    return {
        "model": model_config,
        "decoders": OmegaConf.to_container(config.decoders, resolve=True),
        "training": {"config": config.get("config_name"), "data": data, "seed": config.seed, **settings},
    }


def _decayed_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Weight decay for matrices and kernels only; norms and biases keep their scale."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
