"""Whose moment it is."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from src.utils import stage_clock
from src.utils.stage_clock import ENCODER_REST, REST, StageClock, around, encoder_parts


@pytest.fixture
def ticks(monkeypatch):
    """A clock that moves on by one second whenever somebody looks."""
    monkeypatch.setattr(stage_clock, "time", SimpleNamespace(perf_counter=itertools.count().__next__))


def a_step(clock: StageClock) -> None:
    clock.switch("a")
    clock.enter("b")
    clock.enter("c")
    clock.leave()
    clock.leave()
    clock.switch("whole")
    clock.enter("c")  # a block that is computed again
    clock.switch("a")
    clock.end_step()


def test_every_moment_belongs_to_the_innermost_stage(ticks):
    clock = StageClock(torch.device("cpu"), ["a", "b", "c", "whole"], whole="whole")
    for steps in (1, 2):
        a_step(clock)
        expected = {"a": 3, "b": 2, "c": 1, "whole": 1, "rest": 0}
        assert clock.seconds == {name: steps * seconds for name, seconds in expected.items()}
        assert sum(clock.seconds.values()) <= clock.wall_s
    clock.reset()
    assert not any(clock.seconds.values()) and clock.wall_s == 0


def test_on_a_gpu_the_moments_are_events_that_are_read_after_the_step(monkeypatch):
    queue, done = itertools.count(), []

    class Event:
        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing

        def record(self, stream: str) -> None:
            assert stream == "stream"
            self.at_ms = 1000 * next(queue)

        def elapsed_time(self, other: Event) -> float:
            assert done, "read before the device was waited for"
            return other.at_ms - self.at_ms

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: "stream")
    monkeypatch.setattr(torch.cuda, "synchronize", done.append)
    clock = StageClock(torch.device("cuda"), ["a", "b", "c", "whole"], whole="whole")
    a_step(clock)
    assert clock.seconds == {"a": 3, "b": 2, "c": 1, "whole": 1, "rest": 0} and len(done) == 1


def test_modules_and_methods_move_it(ticks):
    encoder = nn.ModuleDict({"self_attention": nn.Linear(2, 2), "blocks": nn.ModuleList([nn.ReLU()])})
    encoder.forward = lambda x: encoder["self_attention"](x)
    parts = encoder_parts(encoder)
    assert [stage for _, stage in parts] == ["encoder: attention", ENCODER_REST]
    clock = StageClock(torch.device("cpu"), ["a", "method", *(stage for _, stage in parts)])
    clock.watch(parts)
    around(encoder, "forward", lambda: clock.enter("method"), clock.leave)
    clock.switch("a")
    encoder(torch.ones(1, 2))
    clock.end_step()
    # Into the encoder, the method, the attention, and back.
    assert clock.seconds == {"a": 2, ENCODER_REST: 2, "method": 2, "encoder: attention": 1, REST: 0}
