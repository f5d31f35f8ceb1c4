"""Every knob of a run that is not a part of its own (model, data, optimizer ...)."""

from __future__ import annotations

from dataclasses import dataclass

from src.utils.build import Count, Positive, Share, Text, Whole, check_fields
from src.utils.durations import Duration, seconds
from src.utils.errors import UserError


@dataclass(frozen=True)
class RunOptions:
    """What the top of a training config says of the run itself."""

    run_name: Text
    save_dir: Text
    seed: Whole
    num_workers: Whole

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class TrainerOptions:
    """The ``trainer:`` node of a training config."""

    # Stop after this many passes over the training set, or this many optimizer steps, whichever comes first;
    # schedules end with max_steps, without it with the passes' estimated steps.
    max_epochs: Count | None = None
    max_steps: Count | None = None
    precision: Text = (
        "auto"  # fp32, bf16, fp16; auto: bf16 on GPUs from sm_80, fp16 on older ones, fp32 on a CPU
    )
    device: Text = "auto"
    accumulate: Count = 1  # micro-batches per optimizer step
    clip_norm: Positive | None = 5.0  # of the whole gradient; the norm is logged before clipping
    ema_decay: Share | None = None  # evaluate, save and share an average of the weights
    log_every_steps: Count = 10
    evaluate_every_epochs: Count | None = 1
    evaluate_every_steps: Count | None = None
    monitor: Text = "wer_greedy"  # dev metric that chooses `best`, lower is better
    patience: Count | None = None  # stop after this many evaluations without a better one
    save_every: Duration = "10m"  # at the latest, evaluations aside: what a run loses that is killed
    time_limit: Duration | None = None  # save and stop after this time, before the borrowed GPU goes
    keep_last: Count = 1  # checkpoints; scripts/average_checkpoints.py takes them
    keep_best: Count = 1  # by `monitor`
    keep_every_steps: Count | None = None  # and those of every so many steps, where one was saved
    num_samples: Whole = 5  # transcripts with audio and spectrogram shown at each evaluation
    max_bad_steps: Count = 20  # steps in a row with a NaN or infinite gradient before giving up
    resume_from: Text | None = None  # `auto`: go on where the run in this folder stopped
    init_from: Text | None = None  # a checkpoint whose weights to start from (a new head when tokens differ)

    def __post_init__(self) -> None:
        check_fields(self, "trainer.")
        if not (self.max_epochs or self.max_steps):
            raise UserError("trainer: neither max_epochs nor max_steps is set; set one of them")
        if self.resume_from not in (None, "auto"):
            raise UserError(
                f"trainer.resume_from={self.resume_from} is unknown; use auto, with the run's own run_name"
            )

    @property
    def time_limit_s(self) -> float | None:
        return seconds(self.time_limit) if self.time_limit else None

    @property
    def save_every_s(self) -> float:
        return seconds(self.save_every)
