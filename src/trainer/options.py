"""Every knob of a run that is not a part of its own (model, data, optimizer ...)."""

from __future__ import annotations

from dataclasses import dataclass

from src.utils.errors import UserError


@dataclass(frozen=True)
class TrainerOptions:
    """The ``trainer:`` node of a training config."""

    max_epochs: int | None = None  # stop after this many passes over the training set ...
    max_steps: int | None = (
        None  # ... or optimizer steps, whichever comes first; schedules end with max_steps
    )
    precision: str = (
        "auto"  # fp32, bf16, fp16; auto: bf16 on GPUs from sm_80, fp16 on older ones, fp32 on a CPU
    )
    device: str = "auto"
    accumulate: int = 1  # micro-batches per optimizer step
    clip_norm: float | None = 5.0  # of the whole gradient; the norm is logged before clipping
    ema_decay: float | None = None  # evaluate, save and share an average of the weights
    log_every_steps: int = 10
    evaluate_every_epochs: int | None = 1
    evaluate_every_steps: int | None = None
    monitor: str = "wer_greedy"  # dev metric that chooses `best`, lower is better
    patience: int | None = None  # stop after this many evaluations without a better one
    num_samples: int = 5  # transcripts with audio and spectrogram shown at each evaluation
    max_bad_steps: int = 20  # steps in a row with a NaN or infinite gradient before giving up
    resume_from: str | None = None  # `auto`: go on where the run in this folder stopped
    init_from: str | None = None  # a checkpoint whose weights to start from (a new head when tokens differ)

    def __post_init__(self) -> None:
        if not (self.max_epochs or self.max_steps):
            raise UserError("trainer: neither max_epochs nor max_steps is set; set one of them")
        if self.resume_from not in (None, "auto"):
            raise UserError(
                f"trainer.resume_from={self.resume_from} is unknown; use auto, with the run's own run_name"
            )
        for name in ("max_epochs", "max_steps", "accumulate", "log_every_steps", "evaluate_every_epochs",
                     "evaluate_every_steps", "patience", "max_bad_steps"):  # fmt: skip
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"trainer.{name}={value} must be at least 1")
