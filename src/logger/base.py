"""What every experiment tracker is told, and how one of them may fail without costing the training.

A writer overrides the events that it can show and inherits "do nothing" for the rest. Packages of a tracker
are imported by its ``start`` alone, so nobody needs what they do not use.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from tqdm import tqdm

from src.utils.errors import UserError
from src.utils.plots import Looks, spectrogram_figure


@dataclass(frozen=True)
class Sample:
    """One transcribed utterance to look at.

    ``wer`` and ``cer`` are fractions of the reference length (0.5 is 50 %); ``audio`` is [N] float32 at 16
    kHz; ``spectrogram`` is [T, F], one row per frame; ``looks`` is for families that look at frames for each token.
    """

    utterance_id: str
    target: str
    prediction: str
    wer: float
    cer: float
    audio: np.ndarray | None = None
    spectrogram: np.ndarray | None = None
    looks: Looks | None = None

    def picture(self) -> Figure | None:
        """The spectrogram, and where the model looked, if there are such."""
        if self.spectrogram is None:
            return None
        return spectrogram_figure(self.spectrogram, self.utterance_id, looks=self.looks)

    def __str__(self) -> str:
        return (
            f"target: {self.target}, prediction: {self.prediction}, CER: {self.cer:.4f}, WER: {self.wer:.4f}"
        )


class Writer:
    """The events of a run. ``step`` counts optimizer steps and never falls."""

    def start(self, run_dir: Path, config: dict[str, Any], resumed_step: int | None) -> None:
        """Opens the record of this run: the one in ``run_dir`` up to ``resumed_step``, or with None a new one.

        Raises:
            UserError: the tracker's package or key is missing.
        """

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Numbers by name, e.g. ``{"train/loss": 2.1}``."""

    def samples(self, step: int, split: str, rows: Sequence[Sample]) -> None:
        """A table of ``target | prediction | CER | WER`` with what can be heard and seen of each row."""

    def figure(self, step: int, name: str, figure: Figure) -> None:
        """One matplotlib picture."""

    def audio(self, step: int, name: str, audio: np.ndarray) -> None:
        """One recording, [N] in [-1, 1] at 16 kHz."""

    def close(self) -> None:
        """Ends the record; nothing may follow."""


class NullWriter(Writer):
    """Records nothing."""


class Writers(Writer):
    """Tells every writer; one that fails is reported in one line and left out from then on.

    Only a ``UserError`` of ``start`` passes through: somebody asked for a tracker that cannot work here.

    >>> class Broken(Writer):
    ...     def scalars(self, step, values):
    ...         raise OSError("disk full")
    >>> writers = Writers([Broken(), NullWriter()])
    >>> writers.scalars(1, {"train/loss": 2.0})
    >>> [type(writer).__name__ for writer in writers.writers]
    ['NullWriter']
    """

    def __init__(self, writers: Sequence[Writer] = ()) -> None:
        self.writers = list(writers)

    def start(self, run_dir: Path, config: dict[str, Any], resumed_step: int | None) -> None:
        self._tell("start", run_dir, config, resumed_step)

    def scalars(self, step: int, values: dict[str, float]) -> None:
        self._tell("scalars", step, values)

    def samples(self, step: int, split: str, rows: Sequence[Sample]) -> None:
        self._tell("samples", step, split, rows)

    def figure(self, step: int, name: str, figure: Figure) -> None:
        self._tell("figure", step, name, figure)

    def audio(self, step: int, name: str, audio: np.ndarray) -> None:
        self._tell("audio", step, name, audio)

    def close(self) -> None:
        self._tell("close")

    def _tell(self, event: str, *facts: Any) -> None:
        for writer in list(self.writers):
            try:
                getattr(writer, event)(*facts)
            # Whatever a tracker's own code throws, the training is worth more.
            except Exception as error:
                if event == "start" and isinstance(error, UserError):
                    raise
                self.writers.remove(writer)
                reason = " ".join(f"{type(error).__name__}: {error}".split())
                tqdm.write(
                    f"warning: {type(writer).__name__} failed and is left out: {reason}", file=sys.stderr
                )
