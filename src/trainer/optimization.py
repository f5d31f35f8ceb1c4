"""One optimizer step: the gradients of sums are accumulated, divided once by the step's normaliser, and applied.

A batch that does not fit into the memory is cut in two; a NaN or infinite gradient is dropped and its clips are
named. Neither costs the run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from src.datasets import Skipped
from src.trainer.ema import EMA
from src.trainer.step import TrainingStep
from src.utils.audio import SAMPLE_RATE
from src.utils.devices import to_device
from src.utils.errors import UserError
from src.utils.memory import halves, is_out_of_memory, too_long
from src.utils.processes import Processes, other_processes_may_end
from src.utils.seeding import addressed_rng

# Losses are sums over some thousand tokens, so fp16 needs a smaller scale than the usual 65536.
FIRST_SCALE = 64.0


def add_up(sums: dict[str, float], values: Mapping[str, Tensor | float]) -> None:
    """Adds each value to the sum of its name."""
    for name, value in values.items():
        sums[name] = sums.get(name, 0.0) + float(value)


@dataclass
class StepReport:
    """What one optimizer step saw, over all of its micro-batches (and processes)."""

    normalizer: int = 0  # tokens that were scored
    parts: dict[str, float] = field(default_factory=dict)  # sums of the loss's parts
    measures: dict[str, float] = field(default_factory=dict)  # sums that are watched, not minimised
    norm: float = 0.0  # of the whole gradient, before clipping; 0 where no clip could be used
    audio_s: float = 0.0  # padding aside
    skipped: list[Skipped] = field(default_factory=list)  # what could not be read
    too_short: list[str] = field(default_factory=list)  # ids with fewer frames than their transcript needs
    too_long: dict[str, float] = field(default_factory=dict)  # seconds of clips that do not fit even alone
    ids: list[str] = field(default_factory=list)  # of the clips that were computed
    not_finite: list[str] = field(default_factory=list)  # ids of micro-batches whose loss is NaN or infinite
    dropped: str = ""  # why the weights stayed as they were
    example: dict | None = None  # one of the micro-batches

    def add(self, other: StepReport) -> None:
        """Adds what another process saw."""
        self.normalizer += other.normalizer
        self.audio_s += other.audio_s
        add_up(self.parts, other.parts)
        add_up(self.measures, other.measures)
        for name in ("skipped", "too_short", "ids", "not_finite"):
            getattr(self, name).extend(getattr(other, name))
        self.too_long.update(other.too_long)


class Optimization:
    """Turns micro-batches into updates of the weights (and of their average).

    Args:
        step: model and objective, on ``device``.
        optimizer: over the parameters of ``step.model``.
        ema: moved after each update, or None.
        device, dtype: where, and in which format under autocast, the loss is computed.
        clip_norm: longest gradient that is applied; None: any.
        max_bad_steps: steps in a row that may be dropped.
        seed: addresses the random numbers (dropout) of every micro-batch.
        processes: that compute the step's micro-batches together.
    """

    def __init__(
        self,
        step: TrainingStep,
        optimizer: torch.optim.Optimizer,
        ema: EMA | None,
        device: torch.device,
        dtype: torch.dtype,
        clip_norm: float | None,
        max_bad_steps: int,
        seed: int,
        processes: Processes,
    ) -> None:
        self.step, self.optimizer, self.ema = step, optimizer, ema
        self.device, self.dtype = device, dtype
        self.clip_norm, self.max_bad_steps, self.seed = clip_norm, max_bad_steps, seed
        self.scaler = torch.amp.GradScaler(
            device.type, init_scale=FIRST_SCALE, enabled=dtype == torch.float16
        )
        self.processes = processes
        # One exchange a step, after all micro-batches, so that no process waits for one whose memory ran out.
        self.together = None
        if processes.count > 1:
            self.together = DistributedDataParallel(
                step, device_ids=[device] if device.type == "cuda" else None
            )
        self.bad_steps = 0  # in a row, with a NaN or infinite gradient

    def run(self, group: list[dict], number: int) -> StepReport:
        """Step ``number`` (from 0) on collated micro-batches; with several processes, on this one's share of them.

        Raises ``UserError`` after ``max_bad_steps`` dropped steps in a row, at once when the weights themselves are
        not finite, and when the memory does not do for the optimizer's state.
        """
        self.step.train()
        report = self._exchange(self._accumulate(group, number))
        if report.normalizer:
            gradients = self.divide_gradients(report.normalizer / self.processes.count)
            norm = torch.nn.utils.get_total_norm(gradients)
            report.norm = float(norm)
            if norm.isfinite():
                self._apply(norm, number)
            else:
                self.check_weights(number)
                report.dropped = self._diagnosis(report)
            self.scaler.update()
            self.bad_steps = self.bad_steps + 1 if report.dropped else 0
            if self.bad_steps >= self.max_bad_steps:
                raise UserError(
                    f"step {number + 1}: the gradient was NaN or infinite {self.bad_steps} times in a row; "
                    f"the last time {report.dropped}; lower the learning rate, or use trainer.precision=fp32"
                )
        self.optimizer.zero_grad(set_to_none=True)
        return report

    def _accumulate(self, group: list[dict], number: int) -> StepReport:
        """Fills the gradients with the sum over the usable micro-batches."""
        # With its place in the group, which addresses its random numbers.
        batches = [((place,), batch) for place, batch in enumerate(group) if "tokens" in batch]
        left_out: dict[str, float] = {}
        while True:
            computed = []
            for place, batch in batches:
                try:
                    computed.append(self.backward(batch, number, place))
                except (RuntimeError, MemoryError) as error:
                    if not is_out_of_memory(error):
                        raise
                    break
            else:
                break
            # Half-made gradients cannot be taken back alone: all of them go, and the step begins again.
            self.optimizer.zero_grad(set_to_none=True)
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
            smaller = []
            if len(batch["utterance_id"]) > 1:
                smaller = [((*place, half), part) for half, part in enumerate(halves(batch))]
            else:
                left_out |= too_long(batch)
            done = len(computed)
            batches = [*batches[:done], *smaller, *batches[done + 1 :]]
        report = StepReport(skipped=[item for batch in group for item in batch["skipped"]], too_long=left_out)
        # Read after all of them: every look at the device waits until it has done what it was given.
        for (_, batch), losses in zip(batches, computed, strict=True):
            _note(report, batch, losses)
        return report

    def backward(self, batch: dict, number: int, place: tuple[int, ...]) -> dict:
        """Adds the gradient of a micro-batch of step ``number``; what its objective returned, still on the device.

        ``place``: in the group, and of which half of a batch that was too large.
        """
        # As if one process computed the micro-batches of all, in turn.
        place = (place[0] * self.processes.count + self.processes.rank, *place[1:])
        torch.manual_seed(int(addressed_rng(self.seed, "step", number, *place).integers(2**62)))
        on_device = to_device(batch, self.device)
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            losses, _ = self.step(on_device)
        self.scaler.scale(losses["loss_sum"]).backward()
        return {**losses, "loss_sum": losses["loss_sum"].detach()}

    def _exchange(self, own: StepReport) -> StepReport:
        """Adds up what all processes saw; DDP makes each one's gradients the mean over all."""
        if self.together is None:
            return own
        example, own.example = own.example, None
        report = StepReport(example=example)
        for each in self.processes.gather(own):
            report.add(each)
        with other_processes_may_end():
            losses, _ = self.together(None)
            self.scaler.scale(losses["loss_sum"]).backward()
        return report

    def divide_gradients(self, normalizer: float) -> list[Tensor]:
        """Unscales all gradients, divides them and returns them."""
        self.scaler.unscale_(self.optimizer)
        gradients = [p.grad for p in self.step.parameters() if p.grad is not None]
        torch._foreach_div_(gradients, normalizer)
        return gradients

    def check_weights(self, steps: int) -> None:
        """Raises ``UserError`` when a weight has become NaN or infinite: no later step can mend that."""
        for name, value in self.step.model.state_dict().items():
            if not value.isfinite().all():
                raise diverged(steps, f"the weights are not finite ({name})")

    def _apply(self, norm: Tensor, number: int) -> None:
        if self.clip_norm:
            torch.nn.utils.clip_grads_with_norm_(self.step.parameters(), self.clip_norm, norm)
        try:
            self.scaler.step(self.optimizer)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise UserError(
                f"step {number + 1}: the memory does not do for the optimizer's state ({str(error)[:100]}); "
                f"choose a smaller model"
            ) from None
        if self.ema:
            self.ema.update(self.step.model, number)

    def state_dict(self) -> dict[str, Any]:
        """What goes on in the next step, weights, average and optimizer aside."""
        return {"scaler": self.scaler.state_dict(), "bad_steps": self.bad_steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state["scaler"]:  # empty when the earlier sitting had a GPU that needs none
            self.scaler.load_state_dict(state["scaler"])
        self.bad_steps = state["bad_steps"]

    def _diagnosis(self, report: StepReport) -> str:
        """Where a NaN or infinity comes from, as a clause."""
        if report.not_finite:
            return f"the loss of these clips was NaN or infinite: {', '.join(report.not_finite)}"
        return f"the loss was finite but not its gradient; the clips: {', '.join(report.ids)}"


def diverged(steps: int, sign: str) -> UserError:
    """What to say of a run that can no longer come to anything."""
    return UserError(
        f"after {steps} steps {sign}: the training has diverged; lower optimizer.lr, and go on from an earlier "
        f"checkpoint with trainer.init_from=CHECKPOINT run_name=NEW"
    )


def _note(report: StepReport, batch: dict, losses: dict) -> None:
    """Adds what was computed of a micro-batch."""
    ids = batch["utterance_id"]
    report.normalizer += int(losses["normalizer"])
    add_up(report.parts, losses["parts"])
    add_up(report.measures, losses.get("measures", {}))
    if "audio_lengths" in batch:
        report.audio_s += float(batch["audio_lengths"].sum()) / SAMPLE_RATE
    report.too_short += [i for i, short in zip(ids, losses["too_short"].tolist(), strict=True) if short]
    report.ids += ids
    report.example = batch
    if not losses["loss_sum"].isfinite():
        report.not_finite += ids
