"""From a composed training config to a Trainer: the one place where the parts of a run meet."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from hydra.utils import get_class
from omegaconf import DictConfig, OmegaConf
from torch import nn

from src.checkpoint import find_checkpoint
from src.datasets import (
    BatchLimits,
    BucketBatchSampler,
    PreparedDataset,
    SpeechDataset,
    TextDataset,
    build_loader,
)
from src.lm import LSTMLanguageModel
from src.logger import Writers
from src.model import SpeechModel
from src.safe_build import safe_build
from src.text_encoder import TextEncoder
from src.trainer.options import RunOptions, TrainerOptions
from src.trainer.run_folder import RunFolder
from src.trainer.step import TrainingStep
from src.trainer.trainer import Trainer
from src.trainer.trying_out import try_out_parts
from src.transforms import SpecAugment
from src.utils.build import Positive, build, build_settings, check
from src.utils.devices import choose_device
from src.utils.errors import UserError
from src.utils.processes import Processes


def build_trainer(config: DictConfig) -> Trainer:
    """Builds every part that ``src/configs/base.yaml`` lists. Raises ``UserError`` for parts that do not fit."""
    run = RunOptions(config.run_name, config.save_dir, config.seed, config.num_workers)
    options = build_settings(TrainerOptions, config.trainer, "trainer")
    run_dir = Path(run.save_dir) / run.run_name
    _require_start(options, run_dir)
    device = choose_device(options.device)
    processes = Processes.join(device)
    share = {"rank": processes.rank, "processes": processes.count}
    torch.manual_seed(run.seed)
    text_encoder, model_config, model = build_model(config)
    sizes = text_encoder.for_model()
    _note_revisions(model_config, model)
    if empty := [name for name, weight in model.named_parameters() if not weight.numel()]:
        raise UserError(f"model: {empty[0]} would hold no numbers at all; a size in the model's config is 0")
    given = {"tokens": text_encoder.tokens, **sizes}
    searches = safe_build(OmegaConf.to_container(config.decoders, resolve=True), "decoders", given=given)
    if not searches and isinstance(model, SpeechModel):
        raise UserError("decoders: there is no search; name at least one, such as greedy")
    for name, search in searches.items():
        _fitting(f"decoders.{name}", search, Callable)
    spec_augment = _part(config, "transforms.spec_augment", SpecAugment | None)
    objective = _part(config, "objective", nn.Module, given)
    try_out_parts(model, objective, searches)
    step = TrainingStep(model, objective, spec_augment)

    if config.datasets.get("train") is None:
        raise UserError("this datasets config has no training set; choose another with datasets=NAME")
    train = PreparedDataset(
        _part(config, "datasets.train", SpeechDataset),
        text_encoder,
        augmentations=_part(config, "transforms.waveform", Callable | None),
        seed=run.seed,
        spec_draws=step.draws_per_clip,
        shuffled=True,
    )
    _check_kind("datasets.train", train.dataset, model)
    if not len(train):
        out = f"{train.dataset.out_of_range} out of the duration limits, {len(train.dataset.skipped)} unreadable"
        raise UserError(f"no training clips are left ({out}); check datasets.train")
    if not train.has_text():
        raise UserError(
            f"{train.dataset.name}: none of its {len(train)} clips has a transcript that the tokenizer can write; "
            "training needs them (such as transcriptions/ID.txt)"
        )
    limits = vars(build_settings(BatchLimits, config.batching, "batching"))
    sampler = BucketBatchSampler(
        train.dataset.durations, **limits, **share, shuffle=True, seed=run.seed, shards=train.dataset.shards
    )
    train_loader = build_loader(train, sampler, run.num_workers)
    dev_loader = None
    if config.datasets.get("dev") is not None:
        dev = PreparedDataset(_part(config, "datasets.dev", SpeechDataset), text_encoder)
        _check_kind("datasets.dev", dev.dataset, model)
        if not dev.has_text():
            raise UserError(
                f"{dev.dataset.name}: the dev set has no utterance with a usable transcript (such as "
                "transcriptions/ID.txt); check datasets.dev"
            )
        dev_sampler = BucketBatchSampler(dev.dataset.durations, **limits, **share, shuffle=False)
        dev_loader = build_loader(dev, dev_sampler, run.num_workers)

    rates = OmegaConf.to_container(config.learning_rates, resolve=True)
    groups = _parameter_groups(model, config.optimizer.get("weight_decay", 0.0), rates)
    optimizer = build(config.optimizer, groups)
    return Trainer(
        step=step,
        text_encoder=text_encoder,
        searches=searches,
        optimizer=optimizer,
        make_scheduler=lambda total: _schedule(config.lr_scheduler, optimizer, total),
        train_loader=train_loader,
        dev_loader=dev_loader,
        writers=Writers(list(build(config.writer).values())),
        run_dir=run_dir,
        config=_shared_config(config, model_config, train.dataset),
        options=options,
        seed=run.seed,
        device=device,
        processes=processes,
    )


def build_model(config: DictConfig) -> tuple[TextEncoder, dict[str, Any], nn.Module]:
    """The tokenizer, the model's config with what it is told of the tokenizer, and the model.

    Raises ``UserError`` for parts that are missing or do not fit.
    """
    for name in ("model", "text_encoder"):
        if name not in config:
            raise UserError(f"-cn={config.get('config_name')} has no {name}; choose a config of a training")
    text_encoder = _part(config, "text_encoder", TextEncoder)
    sizes = text_encoder.for_model()
    model_config = {**OmegaConf.to_container(config.model, resolve=True), **sizes}
    # Built as a checkpoint will be: a model that could not be loaded again fails now, not after training.
    model = _fitting("model", safe_build(model_config, "model", given=sizes), SpeechModel | LSTMLanguageModel)
    return text_encoder, model_config, model


def _note_revisions(model_config: dict[str, Any], model: nn.Module) -> None:
    """Into the config of each part that came from elsewhere, which state of it that was."""
    for name, part in model.named_children():
        if getattr(part, "revision", None) is not None:
            model_config[name]["revision"] = part.revision


def _check_kind(name: str, dataset: SpeechDataset, model: nn.Module) -> None:
    if isinstance(model, SpeechModel) == isinstance(dataset, TextDataset):
        kind = "recordings" if isinstance(model, SpeechModel) else "texts (datasets=texts)"
        raise UserError(f"{name}: a {type(model).__name__} learns from {kind}; choose another datasets=NAME")


def trainer_to_measure(config: DictConfig) -> Trainer:
    """``build_trainer`` for scripts that measure training steps: only of recognisers, and without a dev set."""
    config = config.copy()
    OmegaConf.update(config, "datasets.dev", None, force_add=True)  # it takes no part in a step
    trainer = build_trainer(config)
    if not isinstance(trainer.step.model, SpeechModel):
        raise UserError(
            f"model: only steps of recognisers are measured, not of a {type(trainer.step.model).__name__}"
        )
    return trainer


def _part(config: DictConfig, name: str, kind: Any, given: Mapping[str, Any] | None = None) -> Any:
    """The part that the config calls ``name``; its class gets what it takes of ``given``.

    Raises ``UserError`` when that makes something else.
    """
    node = OmegaConf.select(config, name)
    if not OmegaConf.is_config(node):
        return _fitting(name, node, kind)
    extra = {}
    if given:
        wanted = inspect.signature(get_class(node._target_)).parameters
        extra = {key: value for key, value in given.items() if key in wanted}
    return _fitting(name, build(node, **extra), kind)


def _fitting(name: str, part: Any, kind: Any) -> Any:
    if isinstance(part, kind):
        return part
    shown = part if isinstance(part, int | float | str) else f"a {type(part).__name__}"
    shown = "null" if part is None else shown
    raise UserError(f"{name}: {shown} is not what is needed there; choose another, or remove it with ~{name}")


def _shared_config(
    config: DictConfig, model_config: dict[str, Any], dataset: SpeechDataset
) -> dict[str, Any]:
    """What goes into a checkpoint's ``config.yaml``: what rebuilds it, and settings without local paths."""
    settings = {
        name: OmegaConf.to_container(config[name], resolve=True)
        for name in ("trainer", "optimizer", "lr_scheduler", "objective", "batching")
    }
    settings["learning_rates"] = OmegaConf.to_container(config.learning_rates, resolve=True)
    settings["trainer"] = {
        k: v for k, v in settings["trainer"].items() if k not in ("resume_from", "init_from", "device")
    }
    for name in ("text_encoder", "transforms"):
        settings[name] = _without_paths(OmegaConf.to_container(config[name], resolve=True))
    kind = type(dataset).__name__.removesuffix("Dataset")
    data = f"{kind} {dataset.name}, {dataset.amount}"
    return {
        "model": model_config,
        "decoders": OmegaConf.to_container(config.decoders, resolve=True),
        "training": {"config": config.get("config_name"), "data": data, "seed": config.seed, **settings},
    }


def _without_paths(node: Any) -> Any:
    """A config's mapping without the folders and files of this machine."""
    if not isinstance(node, dict):
        return node
    return {k: _without_paths(v) for k, v in node.items() if not k.endswith(("_dir", "_file"))}


def _require_start(options: TrainerOptions, run_dir: Path) -> None:
    """Raises ``UserError`` for an ``init_from`` that is not there: now, not after minutes of making a large model."""
    if options.init_from and not (options.resume_from and RunFolder(run_dir).newest()):
        find_checkpoint(options.init_from)


def _parameter_groups(
    model: nn.Module, weight_decay: float, learning_rates: Mapping[str, float]
) -> list[dict[str, Any]]:
    """What is trained, by learning rate and weight decay: that is for matrices and kernels only; norms and biases keep
    their scale. ``learning_rates``: of parameters by how their names begin, where it is not the optimizer's."""
    groups: dict[tuple[str, bool], list[nn.Parameter]] = {("", True): [], ("", False): []}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            part = max((part for part in learning_rates if name.startswith(f"{part}.")), key=len, default="")
            decayed = parameter.ndim > 1 and not name.endswith("bias")
            groups.setdefault((part, decayed), []).append(parameter)
    for part, rate in learning_rates.items():
        check(f"learning_rates.{part}", rate, Positive)
        if not any(named == part for named, _ in groups):
            is_there = any(name.startswith(f"{part}.") for name, _ in model.named_parameters())
            trained = {
                name.partition(".")[0] for name, weight in model.named_parameters() if weight.requires_grad
            }
            raise UserError(
                f"learning_rates.{part}: {'it is frozen' if is_there else 'there is no part of that name'}; "
                f"what is trained: {', '.join(sorted(trained))}"
            )
    return [
        {
            "params": parameters,
            "weight_decay": weight_decay if decayed else 0.0,
            **({"lr": learning_rates[part]} if part else {}),
        }
        for (part, decayed), parameters in groups.items()
    ]


def _schedule(node: DictConfig, optimizer: torch.optim.Optimizer, total_steps: int) -> Any:
    """The schedule of a config node. Raises ``UserError`` for one that would take learning rates of their own away."""
    before = [group["lr"] for group in optimizer.param_groups]
    scheduler = build(node, optimizer, total_steps=total_steps)
    after = [group["lr"] for group in optimizer.param_groups]
    if any(
        abs(a * before[0] - b * after[0]) > 1e-6 * b * before[0] for a, b in zip(after, before, strict=True)
    ):
        raise UserError(
            f"lr_scheduler: {node._target_} has one rate for all; with learning_rates choose another"
        )
    return scheduler
