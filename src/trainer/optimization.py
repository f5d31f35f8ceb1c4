"""One optimizer step: the gradients of sums are accumulated, divided once by the step's normaliser, and applied.

A batch that does not fit into the memory is cut in two; a NaN or infinite gradient is dropped and its clips are
named. Neither costs the run.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from src.trainer.ema import EMA
from src.trainer.evaluation import to_device
from src.trainer.step import TrainingStep
from src.utils.audio import SAMPLE_RATE
from src.utils.errors import UserError
from src.utils.memory import halves, is_out_of_memory
from src.utils.seeding import addressed_rng

# Losses are sums over some thousand tokens, so fp16 needs a smaller scale than the usual 65536.
FIRST_SCALE = 64.0


@dataclass
class StepReport:
    """What one optimizer step saw."""

    normalizer: int  # tokens that were scored
    parts: dict[str, float]  # of the loss, per token
    norm: float  # of the whole gradient, before clipping; 0 where no clip could be used
    batches: list[dict]  # the micro-batches as they were computed
    too_short: list[str]  # ids of clips with fewer frames than their transcript needs
    too_long: dict[str, float]  # seconds of the clips that do not fit into the memory even alone
    dropped: str = ""  # why the weights stayed as they were, with the clips' ids


@dataclass
class _Sums:
    """Over the micro-batches of one step."""

    normalizer: int = 0
    parts: dict[str, float] = field(default_factory=dict)
    too_short: list[str] = field(default_factory=list)
    not_finite: list[str] = field(default_factory=list)  # ids of micro-batches whose loss is NaN or infinite


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
    ) -> None:
        self.step, self.optimizer, self.ema = step, optimizer, ema
        self.device, self.dtype = device, dtype
        self.clip_norm, self.max_bad_steps, self.seed = clip_norm, max_bad_steps, seed
        self.scaler = torch.amp.GradScaler(
            device.type, init_scale=FIRST_SCALE, enabled=dtype == torch.float16
        )
        self.bad_steps = 0  # in a row, with a NaN or infinite gradient

    def run(self, batches: list[dict], number: int) -> StepReport:
        """Step ``number`` (from 0) on collated micro-batches of at least one usable clip each.

        Raises ``UserError`` after ``max_bad_steps`` dropped steps in a row.
        """
        self.step.train()
        sums, batches, too_long = self._accumulate(batches, number)
        report = StepReport(
            sums.normalizer,
            {name: value / max(1, sums.normalizer) for name, value in sums.parts.items()},
            0.0,
            batches,
            sums.too_short,
            too_long,
        )
        if sums.normalizer:
            gradients = self._divide(sums.normalizer)
            norm = torch.nn.utils.get_total_norm(gradients)
            report.norm = float(norm)
            if norm.isfinite():
                self._apply(norm, number)
            else:
                report.dropped = self._diagnosis(sums.not_finite, batches)
            self.scaler.update()
            self.bad_steps = self.bad_steps + 1 if report.dropped else 0
            if self.bad_steps >= self.max_bad_steps:
                raise UserError(
                    f"step {number + 1}: the gradient was NaN or infinite {self.bad_steps} times in a row; "
                    f"the last time {report.dropped}; lower the learning rate, or use trainer.precision=fp32"
                )
        self.optimizer.zero_grad(set_to_none=True)
        return report

    def _accumulate(self, batches: list[dict], number: int) -> tuple[_Sums, list[dict], dict[str, float]]:
        """Fills the gradients; returns the sums, the micro-batches that were needed, and clips too long for any."""
        too_long: dict[str, float] = {}
        while True:
            sums = _Sums()
            for position, batch in enumerate(batches):
                try:
                    self._add(batch, sums, number, position)
                except (RuntimeError, MemoryError) as error:
                    if not is_out_of_memory(error):
                        raise
                    break
            else:
                return sums, batches, too_long
            # Half-made gradients cannot be taken back alone: all of them go, and the step begins again.
            self.optimizer.zero_grad(set_to_none=True)
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
            smaller = []
            if len(batch["utterance_id"]) > 1:
                smaller = halves(batch)
            else:
                too_long[batch["utterance_id"][0]] = int(batch["audio_lengths"][0]) / SAMPLE_RATE
            batches = [*batches[:position], *smaller, *batches[position + 1 :]]

    def _add(self, batch: dict, sums: _Sums, number: int, position: int) -> None:
        torch.manual_seed(int(addressed_rng(self.seed, "step", number, position).integers(2**62)))
        on_device = to_device(batch, self.device)
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            losses, _ = self.step(on_device)
        self.scaler.scale(losses["loss_sum"]).backward()
        sums.normalizer += int(losses["normalizer"])
        for name, value in losses["parts"].items():
            sums.parts[name] = sums.parts.get(name, 0.0) + float(value)
        sums.too_short += losses["too_short"]
        if not losses["loss_sum"].isfinite():
            sums.not_finite += batch["utterance_id"]

    def _divide(self, normalizer: int) -> list[Tensor]:
        self.scaler.unscale_(self.optimizer)
        gradients = [p.grad for p in self.step.parameters() if p.grad is not None]
        torch._foreach_div_(gradients, normalizer)
        return gradients

    def _apply(self, norm: Tensor, number: int) -> None:
        if self.clip_norm:
            torch.nn.utils.clip_grads_with_norm_(self.step.parameters(), self.clip_norm, norm)
        self.scaler.step(self.optimizer)
        if self.ema:
            self.ema.update(self.step.model, number)

    def _diagnosis(self, not_finite: list[str], batches: list[dict]) -> str:
        """Where a NaN or infinity comes from, as a clause."""
        for name, parameter in self.step.named_parameters():
            if not parameter.isfinite().all():
                return (
                    f"the weights themselves are not finite ({name}), so an earlier checkpoint must be taken"
                )
        if not_finite:
            return f"the loss of these clips was NaN or infinite: {', '.join(not_finite)}"
        ids = ", ".join(i for batch in batches for i in batch["utterance_id"])
        return f"the loss was finite but not its gradient; the clips: {ids}"
