"""A run's folder: numbered checkpoints, the pointers ``last`` and ``best``, and what resuming needs.

    saved/NAME/checkpoints/step-200/{model.safetensors, config.yaml, tokenizer.*, README.md, training/}
    saved/NAME/checkpoints/last, best      one line each: the name of a step folder
    saved/NAME/checkpoints/scored          the same, once a run's end was scored with every search

A checkpoint is written under another name, renamed when complete, and only then do the pointers move, ``last``
at the end; a run killed at any moment finds its last complete one and repeats what came after it. Pointers are
small files, because some file systems that people mount (Google Drive) know no links.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from src.utils.errors import UserError
from src.utils.files import atomic_directory
from src.utils.state_files import load_state, save_state

STEP = re.compile(r"step-\d+")  # other names in the folder, such as a copy, are the user's own


def step_of(checkpoint: Path) -> int:
    """The optimizer step that a checkpoint of a run is of."""
    return int(checkpoint.name.removeprefix("step-"))


class RunFolder:
    """The checkpoints of one run below ``directory``."""

    def __init__(self, directory: Path, keep_last: int = 1) -> None:
        self.directory = Path(directory)
        self.keep_last = keep_last
        self.checkpoints = self.directory / "checkpoints"
        self.lock: IO | None = None  # while this process writes here

    def prepare(self) -> None:
        """Makes the folder this process's own to write in: clears what a killed save left, and tries to write.

        Raises ``UserError`` when another process writes there or it cannot be written, before any training is lost.
        """
        probe = self.checkpoints / ".probe"
        try:
            self.checkpoints.mkdir(parents=True, exist_ok=True)
            self._lock()
            self._recover()
            probe.write_text("x", encoding="utf-8")
            probe.unlink()
        except OSError as error:
            raise UserError(
                f"{self.directory}: cannot be written ({error.strerror}); choose another save_dir or run_name"
            ) from None

    def _lock(self) -> None:
        """Until ``release``, or this process's end however that comes. Its children (workers) do not hold it."""
        if self.lock is None:
            self.lock = (self.checkpoints / ".lock").open("a")
        try:
            fcntl.lockf(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                raise UserError(
                    f"{self.directory}: another training is writing there; stop that one, or choose another run_name"
                ) from None
            # A file system without locks takes one training at a time on trust.

    def release(self) -> None:
        """Lets others write here."""
        if self.lock is not None:
            self.lock.close()
            self.lock = None

    def pointed(self, pointer: str) -> Path | None:
        """The checkpoint that ``last`` or ``best`` names; None when it is not there or the pointer is broken."""
        try:
            name = (self.checkpoints / pointer).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError):
            return None
        target = self.checkpoints / name
        return target if STEP.fullmatch(name) and target.is_dir() else None

    def note_scored(self, step: int) -> None:
        """The run ends at this step, and its end has been scored with every search."""
        self._point("scored", f"step-{step}")

    def scored_step(self) -> int | None:
        """What ``note_scored`` was told last."""
        scored = self.pointed("scored")
        return None if scored is None else step_of(scored)

    def newest(self) -> Path | None:
        """The checkpoint to resume from: ``last``, or the highest complete step should the pointer be lost."""
        return self.pointed("last") or next(iter(self.newest_steps()), None)

    def newest_steps(self) -> list[Path]:
        """All checkpoints, the newest first."""
        return sorted(self._steps(), key=step_of, reverse=True)

    def best_steps(self) -> list[Path]:
        """The checkpoints that the newest one's record ranks, the best first."""
        newest = self.newest()
        try:
            ranking = self.load(newest)["counters"]["ranking"] if newest else {}
            names = sorted(ranking, key=ranking.get)
        except (KeyError, TypeError, AttributeError):
            raise UserError(
                f"{newest}: its training state ranks no checkpoints; use --last, or move it away"
            ) from None
        return [self.checkpoints / name for name in names if (self.checkpoints / name).is_dir()]

    def save(
        self,
        step: int,
        write: Callable[[Path], None],
        state: dict[str, Any],
        is_best: bool,
        kept: Callable[[int], bool] = lambda step: False,
    ) -> Path:
        """Writes ``step-N`` (the shared files through ``write``, and ``training/``), moves pointers, drops old ones.

        The best, the ``keep_last`` newest and the steps that are ``kept`` stay. Raises ``UserError`` when the disk
        takes no more; what was there before is still there then.
        """
        directory = self.checkpoints / f"step-{step}"
        try:
            with atomic_directory(directory) as unfinished:
                write(unfinished)
                (unfinished / "training").mkdir()
                save_state(state, unfinished / "training" / "state")
            if is_best:  # before `last`: killed in between, the run repeats this step
                self._point("best", directory.name)
            self._point("last", directory.name)
        except OSError as error:
            newest = self.newest()
            good = f"the last good checkpoint is {newest}" if newest else "there is no checkpoint yet"
            raise UserError(
                f"{directory}: cannot be saved ({error}); {good}; make room and add trainer.resume_from=auto"
            ) from None
        steps = self.newest_steps()
        stay = {self.pointed("last"), self.pointed("best"), *steps[: self.keep_last]}
        for old in steps:
            if old not in stay and not kept(step_of(old)):
                shutil.rmtree(old, ignore_errors=True)
        return directory

    def _steps(self) -> list[Path]:
        return [path for path in self.checkpoints.glob("step-*") if STEP.fullmatch(path.name)]

    def _recover(self) -> None:
        """Clears what a killed save left, and puts back a checkpoint that it had moved aside."""
        for aside in self.checkpoints.glob(".step-*.replaced"):
            whole = self.checkpoints / aside.name.removeprefix(".").removesuffix(".replaced")
            if whole.exists():
                shutil.rmtree(aside, ignore_errors=True)
            else:
                os.replace(aside, whole)
        for unfinished in self.checkpoints.glob(".step-*.unfinished"):
            shutil.rmtree(unfinished, ignore_errors=True)

    def load(self, directory: Path) -> dict[str, Any]:
        """The training state of a checkpoint; ``UserError`` when it is damaged or not there."""
        try:
            return load_state(directory / "training" / "state")
        except Exception as error:  # any way in which two small files can be broken
            detail = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise UserError(
                f"{directory}: its training state cannot be read ({detail}); move it away to resume from an earlier "
                f"one, or start from its weights with trainer.init_from={directory} run_name=NEW"
            ) from None

    def _point(self, pointer: str, name: str) -> None:
        unfinished = self.checkpoints / f".{pointer}.unfinished"
        unfinished.write_text(name + "\n", encoding="utf-8")
        os.replace(unfinished, self.checkpoints / pointer)
