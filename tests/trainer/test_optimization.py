"""One optimizer step: what does not fit, and what is not finite."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from src.trainer.optimization import Optimization
from src.utils.errors import UserError
from src.utils.processes import Processes

CPU = torch.device("cpu")


class SquaredMean(nn.Module):
    """The loss sum over clips of (weight * mean of the clip - 1)^2, in a memory of ``limit`` samples."""

    def __init__(self, limit: int = 10**9) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(2.0))
        self.limit = limit

    @property
    def model(self) -> nn.Module:
        return self

    def forward(self, batch: dict) -> tuple[dict, dict]:
        if batch["audio"].numel() > self.limit:
            self.weight.grad = torch.tensor(1e6)  # a backward pass that broke off half way
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 TiB")
        means = batch["audio"].sum(1) / batch["audio_lengths"]
        loss = (self.weight * means - 1).square().sum()
        sums = {"loss_sum": loss, "normalizer": torch.tensor(len(means)), "parts": {"loss": loss.detach()}}
        return {**sums, "too_short": torch.zeros(len(means), dtype=torch.bool)}, {}


def batch_of(lengths: list[int], value: float = 0.5) -> dict:
    audio = torch.zeros(len(lengths), max(lengths))
    for row, length in enumerate(lengths):
        audio[row, :length] = value
    ids = [f"clip{length}" for length in lengths]
    tokens = torch.zeros(len(lengths), 1)
    lengths = torch.tensor(lengths)
    return {"utterance_id": ids, "audio": audio, "audio_lengths": lengths, "tokens": tokens, "skipped": []}


def optimization(step: nn.Module, **settings) -> Optimization:
    optimizer = torch.optim.SGD(step.parameters(), lr=0.1)
    settings = {"clip_norm": None, "max_bad_steps": 3, "seed": 0, "processes": Processes()} | settings
    return Optimization(step, optimizer, None, CPU, torch.float32, **settings)


def test_a_step_by_hand():
    step = SquaredMean()
    report = optimization(step).run([batch_of([4, 4]), batch_of([2])], 0)
    # (2 * 0.5 - 1)^2 = 0 everywhere, and so is its gradient
    assert report.parts == {"loss": 0.0} and step.weight.item() == 2.0
    report = optimization(step).run([batch_of([4, 4], 1.0), batch_of([2], 1.0)], 0)
    # the gradient of (w - 1)^2 is 2 (w - 1) = 2, however the three clips are cut into batches
    assert report.norm == pytest.approx(2.0) and step.weight.item() == pytest.approx(1.8)


def test_what_does_not_fit_is_cut_in_two_and_nothing_is_lost():
    batches = [batch_of([4, 4, 4], 0.1), batch_of([9, 8, 7, 6, 5], 0.3), batch_of([4], 0.2)]
    roomy, tight = SquaredMean(), SquaredMean(limit=18)
    expected = optimization(roomy).run(copy.deepcopy(batches), 0)
    report = optimization(tight).run(batches, 0)
    assert report.norm == pytest.approx(expected.norm) and tight.weight.item() == pytest.approx(
        roomy.weight.item()
    )
    assert report.ids == [i for batch in batches for i in batch["utterance_id"]] and not report.too_long


def test_a_clip_that_never_fits_is_left_out_alone_and_named():
    roomy, tight = SquaredMean(), SquaredMean(limit=10)
    optimization(roomy).run([batch_of([4, 6], 0.1)], 0)
    report = optimization(tight).run([batch_of([32000, 4], 0.1), batch_of([6], 0.1)], 0)
    assert report.too_long == {"clip32000": 2.0} and tight.weight.item() == pytest.approx(roomy.weight.item())


def test_nothing_usable_changes_nothing():
    step = SquaredMean(limit=1)
    report = optimization(step).run([batch_of([4])], 0)
    assert report.norm == 0.0 and step.weight.item() == 2.0 and report.too_long
    assert optimization(step).run([], 0).norm == 0.0


def test_other_errors_are_not_taken_for_a_lack_of_memory():
    step = SquaredMean()
    with pytest.raises(KeyError):
        optimization(step).run([{"tokens": None, "skipped": []}], 0)


def test_a_gradient_that_is_not_finite_is_dropped_and_its_clips_are_named():
    step = SquaredMean()
    good, bad = batch_of([3], 0.1), batch_of([2, 2], float("inf"))
    engine = optimization(step, max_bad_steps=2)
    report = engine.run([good, bad], 7)
    assert step.weight.item() == 2.0 and engine.bad_steps == 1
    assert report.dropped == "the loss of these clips was NaN or infinite: clip2, clip2"
    assert not engine.run([good], 8).dropped and engine.bad_steps == 0
    engine.run([bad], 9)
    with pytest.raises(
        UserError, match=r"step 11: .* 2 times in a row; the last time the loss of these clips"
    ):
        engine.run([bad], 10)


def test_weights_that_are_not_finite_are_told_apart_from_clips():
    step = SquaredMean()
    with torch.no_grad():
        step.weight.fill_(float("nan"))
    report = optimization(step).run([batch_of([3])], 0)
    assert "weights themselves are not finite (weight)" in report.dropped


def test_clipping_keeps_the_direction_and_reports_the_norm_before_it():
    step = SquaredMean()
    report = optimization(step, clip_norm=0.5).run([batch_of([4], 1.0)], 0)
    assert report.norm == pytest.approx(2.0) and step.weight.item() == pytest.approx(
        2.0 - 0.1 * 0.5, abs=1e-5
    )
