"""Where the time and the memory of training go: real optimizer steps, watched from outside.

Nothing in the training code knows of it: hooks on modules and on the optimizer move a clock from stage to stage.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from src.trainer.trainer import Trainer
from src.utils.audio import SAMPLE_RATE
from src.utils.memory import SavedForBackward, peak_memory
from src.utils.progress import progress_bar
from src.utils.stage_clock import REST, StageClock, around, encoder_parts

LOADER, COPYING, FRONTEND, SPEC_AUGMENT = "waiting for the loader", "copying", "frontend", "SpecAugment"
HEAD, LOSS, BACKWARD = "head", "loss", "backward"
GRADIENT, OPTIMIZER, AVERAGE = "gradient norm and clipping", "optimizer", "EMA"
WARM_UP = 3  # steps that are not counted: memory is asked for, kernels are chosen
IDLE_STEPS = 3  # steps whose kernels are recorded


def profile(trainer: Trainer, steps: int) -> dict[str, Any]:
    """Takes optimizer steps from the trainer's weights on, and returns what ``profile.json`` holds.

    ``stages``: name -> seconds a step and share of the whole; ``memory_bytes``: part -> bytes. Times are of the
    device where that is a GPU. The trainer is spent afterwards: its weights have moved and its parts are watched.
    """
    device, optimization = trainer.device, trainer.optimization
    clock = _watch(trainer)
    groups = _groups(trainer)
    largest: dict | None = None
    real = padded = audio_s = 0.0
    for number in progress_bar(range(WARM_UP + steps), desc="profile", unit="step"):
        if number == WARM_UP:
            clock.reset()
            real = padded = audio_s = 0.0
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(device)
        clock.switch(LOADER)
        group = next(groups)
        clock.switch(COPYING)
        audio_s += optimization.run(group, number).audio_s
        clock.end_step()
        for batch in group:
            if "audio" in batch:
                real, padded = real + int(batch["audio_lengths"].sum()), padded + batch["audio"].numel()
                largest = max(largest or batch, batch, key=lambda each: each["audio"].numel())
    memory = {"peak": peak_memory(device)}
    idle, why_not = _idle_share(device, lambda: optimization.run(next(groups), 0))
    memory = _memory_by_part(trainer, largest) | memory
    computing_s = clock.wall_s - clock.seconds[LOADER]
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "precision": str(trainer.dtype).removeprefix("torch."),
        "steps": steps,
        "wall_s": clock.wall_s,
        "audio_s_per_s": audio_s / clock.wall_s,
        "audio_s_per_s_without_the_loader": audio_s / computing_s,
        "audio_s_per_s_of_the_loader_alone": _speed_of_the_loader(trainer, steps),
        "padding_share": 1 - real / padded if padded else None,
        "gpu_idle_share": idle,
        "gpu_idle_unknown_because": why_not,
        "stages": {
            stage: {"s_per_step": seconds / steps, "share": seconds / clock.wall_s}
            for stage, seconds in clock.seconds.items()
        },
        "memory_bytes": memory,
    }


def _groups(trainer: Trainer) -> Iterator[list[dict]]:
    """The micro-batches of one optimizer step after the other, epoch after epoch."""
    for epoch in itertools.count():
        trainer.train_loader.batch_sampler.set_epoch(epoch)
        batches = iter(trainer.train_loader)
        while group := list(itertools.islice(batches, trainer.options.accumulate)):
            yield group


def _speed_of_the_loader(trainer: Trainer, steps: int) -> float:
    """Seconds of audio a second when nobody computes with them."""
    groups = _groups(trainer)
    for _ in range(1 + 2 * trainer.train_loader.num_workers):  # what the workers make ahead is not counted
        next(groups)
    started, samples = time.perf_counter(), 0
    for group in itertools.islice(groups, steps):
        samples += sum(int(batch["audio_lengths"].sum()) for batch in group if "audio" in batch)
    return samples / SAMPLE_RATE / (time.perf_counter() - started)


def _watch(trainer: Trainer) -> StageClock:
    """A clock that the trainer's parts move."""
    step, optimization = trainer.step, trainer.optimization
    parts = encoder_parts(step.model.encoder)
    named = dict.fromkeys(stage for _, stage in parts)
    forward = [FRONTEND, SPEC_AUGMENT, *named, HEAD, LOSS]
    stages = [LOADER, COPYING, *forward, BACKWARD, GRADIENT, OPTIMIZER, AVERAGE]
    # In a backward pass a module runs again for its gradient, perhaps in another thread.
    clock = StageClock(trainer.device, stages, whole=BACKWARD)
    # What the model does around its encoder and its frontend is its head.
    parts += [(step, REST), (step.model, HEAD), (step.objective, LOSS)]
    parts += [(step.model.frontend, FRONTEND)]
    parts += [(step.spec_augment, SPEC_AUGMENT)] if step.spec_augment is not None else []
    clock.watch(parts)
    step.register_forward_hook(lambda *_: clock.switch(BACKWARD))
    around(optimization, "backward", lambda: clock.switch(COPYING), lambda: clock.switch(REST))
    around(optimization, "divide_gradients", lambda: clock.switch(GRADIENT), lambda: None)
    trainer.optimizer.register_step_pre_hook(lambda *_: clock.switch(OPTIMIZER))
    trainer.optimizer.register_step_post_hook(lambda *_: clock.switch(REST))
    if trainer.ema:
        around(trainer.ema, "update", lambda: clock.switch(AVERAGE), lambda: clock.switch(REST))
    return clock


def _idle_share(device: torch.device, step: Callable[[], Any]) -> tuple[float | None, str | None]:
    """How much of some steps no kernel runs, or why that is not known.

    From the kernels' own timestamps: between two events of a queue one cannot see whether it ran dry.
    """
    if device.type != "cuda":
        return None, "measured on a GPU only"
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CUDA], acc_events=True
    ) as recorded:
        torch.cuda.synchronize(device)
        started = time.perf_counter()
        for _ in range(IDLE_STEPS):
            step()
        torch.cuda.synchronize(device)
        wall_us = 1e6 * (time.perf_counter() - started)
    spans = [
        (event.time_range.start, event.time_range.end)
        for event in recorded.events()
        if event.device_type == torch.autograd.DeviceType.CUDA and not event.is_user_annotation
    ]
    if not spans:
        return None, "the driver shows no kernels (CUPTI is not permitted here)"
    return max(0.0, 1 - covered(spans) / wall_us), None


def covered(spans: Iterable[tuple[float, float]]) -> float:
    """The length of the union of intervals.

    >>> covered([(5, 6), (0, 2), (1, 3)])
    4
    """
    total, reached = 0, float("-inf")
    for start, end in sorted(spans):
        total += max(0, end - max(start, reached))
        reached = max(reached, end)
    return total


def _memory_by_part(trainer: Trainer, batch: dict | None) -> dict[str, int]:
    """Bytes of each part, with the gradients and activations of a step on ``batch``."""
    gradients: list[Tensor] = []
    hook = trainer.optimizer.register_step_pre_hook(
        lambda *_: gradients.extend(p.grad for p in trainer.step.parameters() if p.grad is not None)
    )
    with SavedForBackward() as saved:
        trainer.optimization.run([batch] if batch else [], 0)
    hook.remove()
    weights = [*trainer.step.parameters(), *trainer.step.buffers()]
    state = [value for values in trainer.optimizer.state.values() for value in values.values()]
    return {
        "weights": _bytes(weights),
        "gradients": _bytes(gradients),
        "optimizer state": _bytes(state),
        "EMA": _bytes(trainer.ema.state_dict().values()) if trainer.ema else 0,
        "activations saved for backward": saved.bytes_without(weights),
    }


def _bytes(values: Iterable[Any]) -> int:
    return sum(value.nbytes for value in values if isinstance(value, Tensor))
