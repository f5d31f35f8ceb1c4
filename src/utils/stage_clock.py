"""A clock that knows which part of the work it is looking at, moved from outside by hooks on modules."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import nn

REST, ENCODER_REST = "rest", "encoder: rest"
# Parts of encoders, by a word in the name of the attribute that holds them.
PARTS = ("subsampling", "attention", "convolution", "feed_forward", "recurrent")


class StageClock:
    """Gives every moment of a step to one stage: the innermost that was entered and not left.

    On a GPU the moments are events in its queue, read when the step is over: nothing waits for them.

    Args:
        device: whose time it is.
        stages: their names in order; ``REST`` is added.
        whole: a stage in which nothing is entered.
    """

    def __init__(self, device: torch.device, stages: Iterable[str], whole: str | None = None) -> None:
        self.device, self.on_gpu, self.whole = device, device.type == "cuda", whole
        self.stages = [*stages, REST]
        self.reset()

    def reset(self) -> None:
        """Forgets all steps so far."""
        self.seconds = dict.fromkeys(self.stages, 0.0)
        self.wall_s = 0.0
        self.stack: list[str] = []
        self.marks: list[tuple[str, Any]] = []

    def switch(self, stage: str) -> None:
        """Leaves whatever was entered for ``stage``."""
        if not self.marks:
            self.started = time.perf_counter()
        self.stack = [stage]
        self._mark()

    def enter(self, stage: str) -> None:
        if self.stack[0] != self.whole:
            self.stack.append(stage)
            self._mark()

    def leave(self) -> None:
        if self.stack[0] != self.whole:
            self.stack.pop()
            self._mark()

    def end_step(self) -> None:
        """Waits for the device and adds the step's times to ``seconds`` and ``wall_s``."""
        self.switch(REST)
        if self.on_gpu:
            torch.cuda.synchronize(self.device)
        for (stage, start), (_, end) in itertools.pairwise(self.marks):
            self.seconds[stage] += start.elapsed_time(end) / 1000 if self.on_gpu else end - start
        self.wall_s += time.perf_counter() - self.started
        self.marks = []

    def watch(self, modules: Iterable[tuple[nn.Module, str]]) -> None:
        """From now on a module's forward enters its stage."""
        for module, stage in modules:
            module.register_forward_pre_hook(lambda *_, stage=stage: self.enter(stage))
            module.register_forward_hook(lambda *_: self.leave())

    def _mark(self) -> None:
        moment = torch.cuda.Event(enable_timing=True) if self.on_gpu else time.perf_counter()
        if self.on_gpu:
            moment.record(torch.cuda.current_stream(self.device))
        self.marks.append((self.stack[-1], moment))


def encoder_parts(encoder: nn.Module) -> list[tuple[nn.Module, str]]:
    """The outermost modules that are one of ``PARTS``, and the encoder itself, each with its stage."""
    return [*_parts(encoder), (encoder, ENCODER_REST)]


def _parts(module: nn.Module, inherited: str | None = None) -> Iterator[tuple[nn.Module, str]]:
    """The outermost modules of an encoder that are one of ``PARTS``, with their stage."""
    for name, child in module.named_children():
        part = inherited or next((f"encoder: {part}" for part in PARTS if part in name), None)
        if part is None or isinstance(child, nn.ModuleList):
            yield from _parts(child, part)
        else:
            yield child, part.replace("_", "-")


def around(owner: Any, method: str, before: Callable[[], None], after: Callable[[], None]) -> None:
    """Replaces a method of one object by itself with something done before and after it."""
    original = getattr(owner, method)

    def watched(*args: Any, **kwargs: Any) -> Any:
        before()
        result = original(*args, **kwargs)
        after()
        return result

    setattr(owner, method, watched)
