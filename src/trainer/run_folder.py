"""A run's folder: numbered checkpoints, the pointers ``last`` and ``best``, and what resuming needs.

    saved/NAME/checkpoints/step-200/{model.safetensors, config.yaml, tokenizer.*, README.md, training/}
    saved/NAME/checkpoints/last, best      one line each: the name of a step folder

A checkpoint is written under another name, renamed when complete, and only then do the pointers move; a run
killed at any moment finds its last complete one. Pointers are small files, because some file systems that
people mount (Google Drive) know no links.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from src.checkpoint import atomic_directory
from src.utils.errors import UserError
from src.utils.state_files import load_state, save_state


class RunFolder:
    """The checkpoints of one run below ``directory``."""

    def __init__(self, directory: Path) -> None:
        self.directory = Path(directory)
        self.checkpoints = self.directory / "checkpoints"
        self._recover()

    def pointed(self, pointer: str) -> Path | None:
        """The checkpoint that ``last`` or ``best`` names, if it is there."""
        file = self.checkpoints / pointer
        if not file.is_file():
            return None
        target = self.checkpoints / file.read_text(encoding="utf-8").strip()
        return target if target.is_dir() else None

    def newest(self) -> Path | None:
        """The checkpoint to resume from: ``last``, or the highest complete step should the pointer be lost."""
        steps = sorted(self.checkpoints.glob("step-*"), key=lambda path: int(path.name.split("-")[1]))
        return self.pointed("last") or (steps[-1] if steps else None)

    def save(self, step: int, write: Callable[[Path], None], state: dict[str, Any], is_best: bool) -> Path:
        """Writes ``step-N`` (the shared files through ``write``, and ``training/``), moves pointers, drops old ones."""
        directory = self.checkpoints / f"step-{step}"
        with atomic_directory(directory) as unfinished:
            write(unfinished)
            (unfinished / "training").mkdir()
            save_state(state, unfinished / "training" / "state")
        self._point("last", directory.name)
        if is_best:
            self._point("best", directory.name)
        kept = {self.pointed("last"), self.pointed("best")}
        for old in self.checkpoints.glob("step-*"):
            if old not in kept:
                shutil.rmtree(old, ignore_errors=True)
        return directory

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
                f"{directory}: its training state cannot be read ({detail}); delete this folder"
            ) from None

    def _point(self, pointer: str, name: str) -> None:
        unfinished = self.checkpoints / f".{pointer}.unfinished"
        unfinished.write_text(name + "\n", encoding="utf-8")
        os.replace(unfinished, self.checkpoints / pointer)
