"""The default writer: plain files in the run's folder, no account and no network.

``scalars.jsonl`` is the record itself; ``tensorboard/`` and ``samples/index.html`` are views of the run.
Media files are named by their content, so a dev utterance that is shown at every evaluation is stored once.
"""

from __future__ import annotations

import hashlib
import math
import os
import shutil
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from src.logger.base import Sample, Writer
from src.logger.curves import curves_svg
from src.logger.media import encode_audio, encode_png, figure_pixels
from src.logger.page import render
from src.logger.step_log import StepLog
from src.utils.audio import SAMPLE_RATE
from src.utils.errors import UserError


class LocalWriter(Writer):
    """Writes ``scalars.jsonl``, ``tensorboard/`` and ``samples/`` into the run's folder.

    ``scalars.jsonl`` holds ``{"step": 10, "time": 1760000000.0, "train/loss": 2.1, ...}``, one record a line;
    a value that is not finite is null. ``keep``: how many entries of each split or name the page shows; older
    media are deleted.
    """

    def __init__(self, keep: int = 20) -> None:
        self.keep = keep

    def start(self, run_dir: Path, config: dict[str, Any], resumed_step: int | None) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise UserError(
                "tensorboard: not installed; pip install tensorboard, or choose writer=none"
            ) from None
        self._page_dir, events = run_dir / "samples", run_dir / "tensorboard"
        if resumed_step is None:
            shutil.rmtree(self._page_dir, ignore_errors=True)
            shutil.rmtree(events, ignore_errors=True)
        (self._page_dir / "media").mkdir(parents=True, exist_ok=True)
        self._title = run_dir.resolve().name
        self._scalars = StepLog(run_dir / "scalars.jsonl", resumed_step)
        self._entries = StepLog(self._page_dir / "entries.jsonl", resumed_step)
        self._board = None
        purge_step = None if resumed_step is None else resumed_step + 1  # which steps are written again
        self._open_board = lambda: SummaryWriter(str(events), purge_step=purge_step)  # by the first event
        self._stale = resumed_step is not None

    def scalars(self, step: int, values: dict[str, float]) -> None:
        numbers = {name: float(value) for name, value in values.items()}
        finite = {name: value if math.isfinite(value) else None for name, value in numbers.items()}
        self._scalars.append({"step": step, "time": round(time.time(), 3), **finite})
        for name, value in numbers.items():
            self._tensorboard().add_scalar(name, value, step)
        if self._stale:
            self._render()

    def samples(self, step: int, split: str, rows: Sequence[Sample]) -> None:
        board, entries = self._tensorboard(), []
        for row in rows:
            entry = {
                "utterance_id": row.utterance_id,
                "target": row.target,
                "prediction": row.prediction,
                "wer": float(row.wer),
                "cer": float(row.cer),
            }
            if row.audio is not None:
                entry["audio"] = self._store(encode_audio(row.audio), "flac")
            if (picture := row.picture()) is not None:
                entry["image"] = self._store(encode_png(picture), "png")
            entries.append(entry)
        board.add_text(f"samples/{split}", "\n\n".join(map(str, rows)), step)
        self._entries.append({"step": step, "name": split, "rows": entries})
        self._render()

    def figure(self, step: int, name: str, figure: Figure) -> None:
        self._tensorboard().add_image(name, figure_pixels(figure), step, dataformats="HWC")
        self._entries.append({"step": step, "name": name, "image": self._store(encode_png(figure), "png")})
        self._stale = True

    def audio(self, step: int, name: str, audio: np.ndarray) -> None:
        self._tensorboard().add_audio(name, np.clip(audio, -1, 1)[None], step, SAMPLE_RATE)
        file = self._store(encode_audio(audio), "flac")
        self._entries.append({"step": step, "name": name, "audio": file})
        self._stale = True

    def close(self) -> None:
        self._render()
        if self._board is not None:
            self._board.close()

    def _tensorboard(self) -> Any:
        if self._board is None:
            self._board = self._open_board()
        return self._board

    def _store(self, content: bytes, suffix: str) -> str:
        name = f"media/{hashlib.blake2b(content, digest_size=10).hexdigest()}.{suffix}"
        (self._page_dir / name).write_bytes(content)
        return name

    def _render(self) -> None:
        """Writes the page anew, and forgets entries and media that it no longer shows."""
        seen: Counter[tuple[str, str]] = Counter()
        entries = []
        for entry in reversed(self._entries.read()):
            kind = (entry["name"], next(key for key in ("rows", "image", "audio") if key in entry))
            seen[kind] += 1
            if seen[kind] <= self.keep:
                entries.insert(0, entry)
        self._entries.rewrite(entries)
        shown = {
            row.get(key)
            for entry in entries
            for row in entry.get("rows", [entry])
            for key in ("audio", "image")
        }
        for file in (self._page_dir / "media").iterdir():
            if f"media/{file.name}" not in shown:
                file.unlink()
        page = render(self._title, curves_svg(self._scalars.read()), entries)
        temporary = self._page_dir / "index.tmp"
        temporary.write_text(page, encoding="utf-8")
        os.replace(temporary, self._page_dir / "index.html")
        if self._board is not None:
            self._board.flush()
        self._stale = False
