"""What a run keeps to go on later as if it had never stopped, and how it takes that up again."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import torch

from src.text_encoder import TextEncoder
from src.trainer.ema import EMA
from src.trainer.optimization import Optimization
from src.trainer.options import TrainerOptions
from src.trainer.step import TrainingStep
from src.utils.errors import UserError

COUNTERS = (
    "steps",
    "epoch",
    "position",
    "best",
    "evaluations_without_gain",
    "empty_steps",
    "evaluated_step",
    "scores",
    "ranking",
    "seconds",
)


# How something is computed, not what: a run may go on with another value.
FREE = ("model.encoder.checkpoint_activations",)


class Resumable(Protocol):
    """What is asked of a trainer, besides its ``COUNTERS``."""

    step: TrainingStep
    text_encoder: TextEncoder
    optimizer: torch.optim.Optimizer
    optimization: Optimization
    ema: EMA | None
    steps: int
    step_size: int
    seed: int
    config: dict[str, Any]
    options: TrainerOptions

    def move_schedule(self, step: int) -> None:
        """To the learning rate of that optimizer step."""


def training_state(trainer: Resumable) -> dict[str, Any]:
    """All that ``restore`` needs."""
    return {
        "counters": {name: getattr(trainer, name) for name in COUNTERS},
        "record": _record(trainer),
        "model": dict(trainer.step.model.state_dict()),
        "ema": trainer.ema.state_dict() if trainer.ema else None,
        "optimizer": trainer.optimizer.state_dict(),
        **trainer.optimization.state_dict(),
    }


def restore(trainer: Resumable, state: Any, source: Path) -> None:
    """Puts ``trainer`` where the run was that saved ``state``; ``source`` names it in errors.

    Raises ``UserError`` when the run had other settings than ``trainer``, or the state is damaged.
    """
    if not isinstance(state, dict) or not isinstance(state.get("record"), dict):
        raise UserError(
            f"{source}: its training state does not say how it was trained; change run_name and start from its "
            f"weights with trainer.init_from={source}"
        )
    _compare(state["record"], _record(trainer), source)
    try:
        trainer.step.model.load_state_dict(state["model"])
        trainer.optimizer.load_state_dict(state["optimizer"])
        _check_shapes(trainer.optimizer)
        trainer.optimization.load_state_dict(state)
        if trainer.ema:
            trainer.ema.load_state_dict(state["ema"] or state["model"])
        for name in COUNTERS:
            setattr(trainer, name, type(getattr(trainer, name))(state["counters"][name]))
    except (RuntimeError, ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        detail = str(error).splitlines()[-1].strip()
        raise UserError(
            f"{source}: was trained with another model, or is damaged ({detail}); change run_name"
        ) from None
    with warnings.catch_warnings():  # PyTorch expects optimizer steps in between; they lie in the past
        warnings.simplefilter("ignore", UserWarning)
        for step in range(1, trainer.steps + 1):
            trainer.move_schedule(step)


def _check_shapes(optimizer: torch.optim.Optimizer) -> None:
    """Raises ``ValueError`` unless every state is a number or of its parameter's shape: fused kernels never look."""
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if isinstance(value, torch.Tensor) and value.ndim and value.shape != parameter.shape:
                raise ValueError(f"{name} of the optimizer has the shape {tuple(value.shape)}")


def _record(trainer: Resumable) -> dict[str, Any]:
    """The settings that a run may not change half way: with others the saved numbers mean something else."""
    training = trainer.config["training"]
    return {
        "seed": trainer.seed,
        "trainer.accumulate times processes": trainer.step_size,
        "trainer.monitor": trainer.options.monitor,
        **{
            part if name == "_target_" else f"{part}.{name}": value
            for part in ("optimizer", "learning_rates", "lr_scheduler", "batching", "objective")
            for name, value in training.get(part, {}).items()
        },
        **dict(_settings("model", trainer.config["model"])),
        "text_encoder": trainer.text_encoder.tokens,
    }


def _settings(name: str, node: Any) -> Iterator[tuple[str, Any]]:
    """``model.encoder.dim`` and its like, with their values."""
    if not isinstance(node, dict):
        yield name, node
        return
    for key, value in node.items():
        yield from _settings(name if key == "_target_" else f"{name}.{key}", value)


def _compare(theirs: dict[str, Any], ours: dict[str, Any], source: Path) -> None:
    """Raises ``UserError`` that names every setting which is another one now."""
    names = [name for name in {**theirs, **ours} if name not in FREE and theirs.get(name) != ours.get(name)]
    different = [
        "other tokens (text_encoder)"
        if name == "text_encoder"
        else f"{name}={theirs.get(name)}, not {ours.get(name)}"
        for name in names
    ]
    if different:
        it = "it" if len(different) == 1 else "them"
        raise UserError(
            f"{source}: was trained with {'; '.join(different)}: set {it} back, or change run_name"
        )
