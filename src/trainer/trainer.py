"""The training loop, for every family: it knows batches, one TrainingStep and files, but no model.

Each step's random numbers (dropout) are addressed by (seed, step): a resumed run repeats nothing and needs no
generator state.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch.optim.lr_scheduler import LRScheduler
from tqdm import tqdm

from src.checkpoint import Checkpoint, try_out, write_checkpoint
from src.logger import Writers
from src.model import SpeechModel
from src.text_encoder import TextEncoder
from src.trainer.ema import EMA
from src.trainer.evaluation import Evaluation, evaluate
from src.trainer.initialise import initialise_from, untaught_parts
from src.trainer.interruption import Interrupted, Interruption
from src.trainer.optimization import Optimization, diverged
from src.trainer.options import TrainerOptions
from src.trainer.report import WHY_TOO_SHORT, Reporter, SilentReporter, model_card
from src.trainer.resuming import restore, training_state
from src.trainer.run_folder import RunFolder
from src.trainer.step import TrainingStep
from src.utils.devices import ThreadTime, choose_device, choose_precision
from src.utils.errors import UserError
from src.utils.processes import Processes
from src.utils.progress import progress_bar


class Trainer:
    """Trains, evaluates on dev, keeps the best and the last checkpoint.

    Args:
        step: model, objective and SpecAugment.
        text_encoder: the tokenizer, saved with every checkpoint.
        searches: name -> search; all are scored at the end, the first at each evaluation. A language model has none.
        optimizer: over the parameters of ``step.model``.
        make_scheduler: total optimizer steps -> learning rate schedule, stepped once per optimizer step.
        train_loader: yields collated batches; its ``batch_sampler`` has ``set_epoch`` and a position.
        dev_loader: yields every dev utterance once, or None for a run without evaluation.
        writers: what is told about the run.
        run_dir: the run's folder.
        config: what the checkpoint's ``config.yaml`` says (model and decoders).
        options: the knobs.
        seed: addresses every random number of the run.
        device: where to train; by default what the options say.
        processes: that train together; by default this one alone.
    """

    def __init__(
        self,
        *,
        step: TrainingStep,
        text_encoder: TextEncoder,
        searches: dict[str, Any],
        optimizer: torch.optim.Optimizer,
        make_scheduler: Callable[[int], LRScheduler],
        train_loader: Any,
        dev_loader: Any | None,
        writers: Writers,
        run_dir: Path,
        config: dict[str, Any],
        options: TrainerOptions,
        seed: int = 0,
        device: torch.device | None = None,
        processes: Processes | None = None,
    ) -> None:
        self.options = options
        self.seed = seed
        self.processes = processes or Processes()
        self.device = device or choose_device(options.device)
        self.dtype = choose_precision(options.precision, self.device)
        self.step = step.to(self.device)
        self.text_encoder = text_encoder
        self.searches = searches
        self.optimizer = optimizer
        self.train_loader = train_loader
        self.dev_loader = dev_loader
        self.config = config
        self.folder = RunFolder(run_dir, options.keep_last)
        self.ema = EMA(step.model, options.ema_decay) if options.ema_decay else None
        self.optimization = Optimization(
            self.step,
            optimizer,
            self.ema,
            self.device,
            self.dtype,
            clip_norm=options.clip_norm,
            max_bad_steps=options.max_bad_steps,
            seed=seed,
            processes=self.processes,
        )
        # Micro-batches of an optimizer step, over all processes.
        self.step_size = options.accumulate * self.processes.count
        self.steps_per_epoch = max(1, -(-len(train_loader.batch_sampler) // self.step_size))
        # Without max_steps an estimate for the schedule: shuffled epochs differ by a few batches.
        self.total_steps = options.max_steps or options.max_epochs * self.steps_per_epoch
        self.scheduler = make_scheduler(self.total_steps)
        measured = ["loss", *(f"{rate}_{name}" for name in [*searches][:1] for rate in ("wer", "cer"))]
        if options.monitor not in measured:
            raise UserError(
                f"trainer.monitor={options.monitor} is not measured; choose one of: {', '.join(measured)}"
            )
        if options.patience is not None and dev_loader is None:
            raise UserError(
                f"trainer.patience={options.patience} needs a dev set; set datasets.dev, or patience=null"
            )
        reason = getattr(step.objective, "why_too_short", WHY_TOO_SHORT)
        self.reporter = Reporter(writers, step.model, dev_loader, options.num_samples, seed, reason)
        if not self.processes.is_first:
            self.reporter = SilentReporter()

        self.steps = 0  # optimizer steps done
        self.epoch = 0  # passes over the training set done
        self.position = 0  # micro-batches done in this pass
        self.best = float("inf")
        self.evaluations_without_gain = 0
        self.empty_steps = 0  # in a row, without a single usable clip
        self.evaluated_step = 0  # the last step that was scored on dev ...
        self.scores: dict[str, float] = {}  # ... and its scores
        self.ranking: dict[str, float] = {}  # checkpoint's name -> its score, of the best ones that are kept
        self.seconds = 0.0  # of training, over all sittings
        self.thread_time = ThreadTime()
        self.saved_at = time.monotonic()
        self.stopping: str | None = None  # why, once all have agreed to stop

    def run(self) -> Path:
        """Trains to the end and returns the best checkpoint (the last one when there is no dev set).

        Ctrl-C, SIGTERM and the time limit save where it is and raise ``Interrupted``.
        """
        if self.processes.is_first:
            self.folder.prepare()
        resumed_step = self._resume_or_start()
        if not self._finished() or self._unscored():  # otherwise its record is complete
            self.reporter.start(self.folder.directory, self.config, resumed_step)
        for loader in filter(None, (self.train_loader, self.dev_loader)):
            self.reporter.note_skipped(loader.dataset.dataset.skipped)
        self.reporter.introduce(self)
        started = time.monotonic() - self.seconds
        bar = progress_bar(
            total=max(self.total_steps, self.steps),
            initial=self.steps,
            desc="train",
            unit="step",
            smoothing=0.05,
            disable=not self.processes.is_first,
        )
        self.reporter.bar = bar
        try:
            tell = self.reporter.say_at_once
            with Interruption(self.options.time_limit_s, tell) as self.interruption:
                if self.steps and not self._finished() and self._evaluation_is_due():
                    self._evaluate_and_save()  # left out when the run was stopped right there
                while not self._finished():
                    self._epoch(bar, started)
                    if self.stopping and not self._finished():
                        self._save_unless_there()
                        raise Interrupted(self.stopping, self.steps)
                self._save_unless_there()  # before it is scored, which takes time
            self._final_evaluation()
        except KeyboardInterrupt:  # the second one, or one while the end is scored
            last = self.folder.pointed("last")
            kept = "nothing was saved yet" if last is None else f"{last} was saved last"
            self.reporter.say(f"stopped at step {self.steps}; {kept}")
            raise
        finally:
            if self._finished():
                bar.total = self.steps  # it was an estimate
            bar.close()
            self.folder.release()
            self.reporter.close()
        return self.folder.pointed("best") or self.folder.pointed("last")

    # ---- one pass over the data ----------------------------------------------------------------------------

    def _finished(self) -> bool:
        epochs_done = self.options.max_epochs is not None and self.epoch >= self.options.max_epochs
        return epochs_done or self._out_of_steps() or self._out_of_patience()

    def _unscored(self) -> bool:
        return self.dev_loader is not None and self.folder.scored_step() != self.steps

    def _out_of_steps(self) -> bool:
        return self.options.max_steps is not None and self.steps >= self.options.max_steps

    def _out_of_patience(self) -> bool:
        patience = self.options.patience
        return patience is not None and self.evaluations_without_gain >= patience

    def _epoch(self, bar: tqdm, started: float) -> None:
        sampler = self.train_loader.batch_sampler
        sampler.set_epoch(self.epoch, self.position)
        if self.position >= len(sampler):  # resumed on fewer clips than before
            self.epoch, self.position = self.epoch + 1, 0
            return
        batches = iter(self.train_loader)
        for start in range(self.position, len(sampler), self.step_size):
            size = min(self.step_size, len(sampler) - start)
            own = len(range(self.processes.rank, size, self.processes.count))
            self._optimizer_step(list(itertools.islice(batches, own)))
            self.position = start + size
            if self._nothing_is_usable():
                raise UserError(
                    "none of the training clips could be used; the lines above name each and its reason"
                )
            if self.position >= len(sampler):
                self.epoch, self.position = self.epoch + 1, 0
            self.seconds = time.monotonic() - started
            bar.update(self.steps - bar.n)
            self.stopping, save_is_due = self._agree()
            if self.stopping is None:
                if self._evaluation_is_due():
                    self._evaluate_and_save()
                elif save_is_due:
                    self._save(is_best=False)
            if self._out_of_steps() or self._out_of_patience() or self.stopping:
                break

    def _nothing_is_usable(self) -> bool:
        """At an epoch's end, or at the run's own: none of its steps had a single usable clip."""
        sampler = self.train_loader.batch_sampler
        if self.position >= len(sampler):
            return self.empty_steps >= -(-len(sampler) // self.step_size)
        return self._out_of_steps() and self.empty_steps == self.steps

    def _agree(self) -> tuple[str | None, bool]:
        """Why all stop here, if they do, and whether to save: clocks and signals differ between processes."""
        due = time.monotonic() - self.saved_at >= self.options.save_every_s
        everybody = self.processes.gather((self.interruption.reason, due))
        return next((reason for reason, _ in everybody if reason), None), any(due for _, due in everybody)

    def _evaluation_is_due(self) -> bool:
        steps, epochs = self.options.evaluate_every_steps, self.options.evaluate_every_epochs
        after_epoch = epochs is not None and self.position == 0 and self.epoch % epochs == 0
        return after_epoch or (steps is not None and self.steps % steps == 0)

    def _optimizer_step(self, group: list[dict]) -> None:
        """One update of the weights, and of the schedule, from the micro-batches of ``group`` (and the others')."""
        with self.thread_time:
            report = self.optimization.run(group, self.steps)
        self.reporter.note_neighbours(self.device, self.thread_time)
        self.empty_steps = 0 if report.normalizer else self.empty_steps + 1
        # A dropped step moves the schedule too, so that the rate is a function of the step alone.
        self.steps += 1
        self.move_schedule(self.steps)
        lr = self.optimizer.param_groups[0]["lr"]
        self.reporter.note_step(self.steps, report, lr, log=self.steps % self.options.log_every_steps == 0)

    def move_schedule(self, step: int) -> None:
        """To the rate of ``step``; past the schedule's end, where PyTorch's own may raise, the last rate stays."""
        if step < self.total_steps:
            self.scheduler.step()

    # ---- dev scores and checkpoints ------------------------------------------------------------------------

    def _evaluate(self, searches: dict[str, Any]) -> Evaluation | None:
        if self.dev_loader is None:
            return None
        with self._shared_weights():
            evaluation = evaluate(
                self.step, self.text_encoder, searches, self.dev_loader, "dev", self.processes
            )
        if not evaluation.references:
            self._save_unless_there()
            raise UserError("no utterance of the dev set could be used; check datasets.dev")
        self.scores, self.evaluated_step = evaluation.metrics, self.steps
        return evaluation

    def _evaluate_and_save(self) -> None:
        """Scores this step on dev and saves it; does nothing where that has been done."""
        if self.evaluated_step == self.steps:
            return
        first = dict([*self.searches.items()][:1])
        evaluation = self._evaluate(first)
        is_best = False  # without a dev set nothing says so
        if evaluation is not None:
            score = evaluation.metrics[self.options.monitor]
            gained = score < self.best
            is_best = score <= self.best  # of equal ones the later, which has learnt more
            self.best = score if is_best else self.best
            self._rank(score)
            self.evaluations_without_gain = 0 if gained else self.evaluations_without_gain + 1
            with self._shared_weights():
                self.reporter.note_evaluation(self.steps, evaluation, next(iter(first), None))
        self._save(is_best)

    def _final_evaluation(self) -> None:
        """Scores the end of the run, then its best checkpoint with every search."""
        if self.dev_loader is None:
            return
        self._evaluate_and_save()
        best = (
            Checkpoint.open(self.folder.pointed("best") or self.folder.pointed("last"))
            .model(type(self.step.model))
            .to(self.device)
        )
        final = TrainingStep(best, self.step.objective, None)
        evaluation = evaluate(
            final, self.text_encoder, self.searches, self.dev_loader, "dev, all searches", self.processes
        )
        self.reporter.note_final(self.steps, evaluation, self.searches)
        if self.processes.is_first:
            self.folder.note_scored(self.steps)

    def _save_unless_there(self) -> None:
        last = self.folder.pointed("last")
        if self.processes.from_first(last is None or last.name != f"step-{self.steps}"):
            self._save(is_best=False)

    def _save(self, is_best: bool) -> None:
        self._check_divergence()
        scores = self.scores if self.evaluated_step == self.steps else {}
        card = model_card(self.folder.directory.name, self.config, self.steps, self.seconds, scores)

        def write(directory: Path) -> None:
            with self._shared_weights():
                write_checkpoint(directory, self.step.model, self.config, self.text_encoder, card)

        if self.processes.is_first:
            self.folder.save(self.steps, write, training_state(self), is_best, self._kept)
        self.processes.gather("saved")  # nobody reads or ends before it is written
        self.saved_at = time.monotonic()

    def _check_divergence(self) -> None:
        """Raises ``UserError`` for weights that nobody could load again."""
        self.optimization.check_weights(self.steps)
        if isinstance(self.step.model, SpeechModel):
            with self._shared_weights():
                try:
                    try_out(self.step.model)
                except ValueError as error:
                    raise diverged(self.steps, f"the model fails on a second of sound ({error})") from None

    def _rank(self, score: float) -> None:
        ranking = {f"step-{self.steps}": score, **self.ranking}  # first among equals
        self.ranking = dict(sorted(ranking.items(), key=lambda item: item[1])[: self.options.keep_best])

    def _kept(self, step: int) -> bool:
        """Whether the checkpoint of an earlier step stays (``best`` and the last ones do anyway)."""
        every = self.options.keep_every_steps
        return f"step-{step}" in self.ranking or (every is not None and step % every == 0)

    def _shared_weights(self) -> AbstractContextManager:
        return self.ema.applied_to(self.step.model) if self.ema else nullcontext()

    # ---- resuming ------------------------------------------------------------------------------------------

    def _resume_or_start(self) -> int | None:
        """Takes up the run that lies in the folder and returns its step; None: a new one."""
        newest = self.processes.from_first(self.folder.newest())
        if newest is None:
            if self.options.resume_from:
                self.reporter.say(f"nothing to go on from in {self.folder.directory}; starting anew")
            if self.options.init_from:
                taken = initialise_from(
                    self.step.model, self.options.init_from, self.text_encoder, self.config["model"]
                )
                self.reporter.say(taken)
                if self.ema:
                    self.ema.load_state_dict(self.step.model.state_dict())
            elif untaught := untaught_parts(self.step.model):
                self.reporter.say(
                    f"warning: {' and '.join(untaught)}: random, and frozen as such; start from a checkpoint that has "
                    "it (trainer.init_from), or give its source"
                )
            return None
        if self.options.resume_from is None:
            raise UserError(
                f"{self.folder.directory} already holds a run; go on with trainer.resume_from=auto (in a sweep this "
                f"passes over what is finished), or choose another run_name"
            )
        first = self.processes.is_first
        restore(self, self.processes.from_first(self.folder.load(newest) if first else None), newest)
        if self.folder.pointed("best") is None:  # lost: the next evaluation chooses anew
            self.best = float("inf")
        over = "; it is at its end already: no step is left to train" if self._finished() else ""
        self.reporter.say(f"going on from step {self.steps} of {newest}{over}")
        return self.steps
