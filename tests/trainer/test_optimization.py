"""One optimizer step: what does not fit, and what is not finite."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from src.trainer.ema import EMA
from src.trainer.optimization import FIRST_SCALE, Optimization
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


def test_weights_that_are_not_finite_end_a_run_at_once():
    step = SquaredMean()
    with torch.no_grad():
        step.weight.fill_(float("nan"))
    with pytest.raises(UserError, match=r"after 5 steps the weights are not finite \(weight\): .* diverged"):
        optimization(step).run([batch_of([3])], 5)


def test_an_optimizer_without_memory_for_its_state_is_one_line(monkeypatch):
    engine = optimization(SquaredMean())

    def step(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 TiB")

    monkeypatch.setattr(engine.optimizer, "step", step)
    with pytest.raises(UserError, match=r"step 1: the memory does not do for the optimizer's state \(CUDA"):
        engine.run([batch_of([3], 1.0)], 0)


def test_clipping_keeps_the_direction_and_reports_the_norm_before_it():
    step = SquaredMean()
    report = optimization(step, clip_norm=0.5).run([batch_of([4], 1.0)], 0)
    assert report.norm == pytest.approx(2.0) and step.weight.item() == pytest.approx(
        2.0 - 0.1 * 0.5, abs=1e-5
    )


class Drawing(SquaredMean):
    """Notes the random number that each batch's first clip meets."""

    def __init__(self, limit: int = 10**9) -> None:
        super().__init__(limit)
        self.drawn: dict[str, float] = {}

    def forward(self, batch: dict) -> tuple[dict, dict]:
        result = super().forward(batch)
        self.drawn[batch["utterance_id"][0]] = torch.rand(()).item()
        return result


def test_random_numbers_belong_to_a_place_in_the_step_whatever_else_is_in_it():
    """So do those of several processes: an unusable batch, or a split one, moves nobody else's."""
    batches = [batch_of([length], 0.1) for length in (1, 2, 3, 4)]
    whole, gap, split = Drawing(), Drawing(), Drawing(limit=5)
    optimization(whole).run(batches, 0)
    optimization(gap).run([{"skipped": []}, *batches[1:]], 0)
    optimization(split).run([batch_of([5, 5]), *batches[1:]], 0)
    assert len(set(whole.drawn.values())) == 4
    for clip in ("clip2", "clip3", "clip4"):
        assert whole.drawn[clip] == gap.drawn[clip] == split.drawn[clip]
    ranks = []
    for rank in (0, 1):
        step, processes = Drawing(), Processes()
        engine = optimization(step)
        processes.rank, processes.count = rank, 2  # each computes every second batch; nothing is exchanged
        engine.processes = processes
        for place, batch in enumerate(batches[rank::2]):
            engine.backward(batch, 0, (place,))
        ranks.append(step.drawn)
    assert ranks[0] | ranks[1] == whole.drawn


def test_an_overflow_in_fp16_is_dropped_and_lowers_the_scale_alone():
    step = SquaredMean()
    optimizer = torch.optim.SGD(step.parameters(), lr=0.1)
    ema = EMA(step, 0.5)
    engine = Optimization(
        step, optimizer, ema, CPU, torch.float16, None, max_bad_steps=3, seed=0, processes=Processes()
    )
    report = engine.run([batch_of([4], float("inf"))], 0)
    assert report.dropped and step.weight.item() == 2.0 and engine.scaler.get_scale() == FIRST_SCALE / 2
    assert ema.state_dict()["weight"].item() == 2.0
    kept = engine.state_dict()
    report = engine.run([batch_of([4], 1.0)], 1)
    # unscaled before it is measured and applied, as in test_a_step_by_hand
    assert report.norm == pytest.approx(2.0, rel=1e-2) and step.weight.item() == pytest.approx(1.8, rel=1e-2)
    assert ema.state_dict()["weight"].item() != 2.0 and engine.bad_steps == 0
    engine.load_state_dict(kept)
    assert engine.bad_steps == 1 and engine.scaler.get_scale() == FIRST_SCALE / 2
    engine.load_state_dict({"scaler": {}, "bad_steps": 2})  # of a sitting without a scaler
    assert engine.bad_steps == 2 and engine.scaler.get_scale() == FIRST_SCALE / 2


def test_a_lack_of_memory_outside_of_torch_counts_too(monkeypatch):
    tight, roomy = SquaredMean(), SquaredMean()
    forward = SquaredMean.forward

    def starved(self, batch):
        if self is tight and len(batch["audio"]) > 1:
            raise MemoryError
        return forward(self, batch)

    monkeypatch.setattr(SquaredMean, "forward", starved)
    for step in (tight, roomy):
        optimization(step).run([batch_of([4, 4], 1.0)], 0)
    assert tight.weight.item() == pytest.approx(roomy.weight.item())
