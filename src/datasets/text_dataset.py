"""Lines of text, for language models."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from src.datasets.index import Entry, Skipped
from src.datasets.speech_dataset import SpeechDataset
from src.text_encoder import normalize
from src.text_encoder.corpus import read_lines, text_files
from src.utils.errors import AudioError, TextError, UserError
from src.utils.progress import progress_bar


class TextDataset(SpeechDataset):
    """Every line of some texts that is not empty, normalised. A line's "duration" is its number of letters.

    Args:
        texts: files (.txt, .jsonl, .tsv, each also .gz) and folders with such files or transcripts.
        limit: keep the first N lines only.
        max_letters: leave out longer lines.

    Raises ``UserError`` where there is nothing to read.
    """

    def __init__(
        self, texts: Sequence[str] | str, limit: int | None = None, max_letters: int | None = None
    ) -> None:
        paths = [texts] if isinstance(texts, str) else list(texts or ())
        if not paths:
            raise UserError("TextDataset: no texts are given; name files or folders with sentences")
        unreadable: list[Skipped] = []
        name = "-".join(Path(path).name for path in paths)
        lines = _lines(paths, unreadable)
        entries = list(progress_bar(lines, desc=f"reading {name}", unit="line", delay=1))
        super().__init__(entries, unreadable, name, limit, min_duration_s=1, max_duration_s=max_letters)

    @property
    def amount(self) -> str:
        return f"{len(self):,} lines ({self.durations.sum():,.0f} letters)"

    def read_audio(self, entry: Entry) -> np.ndarray:
        raise AudioError(f"{entry.id}: is a line of text")


def _lines(paths: Sequence[str], unreadable: list[Skipped]) -> Iterator[Entry]:
    """An entry for each line; files that cannot be read go to ``unreadable``."""
    for number, file in enumerate(file for path in paths for file in text_files(path)):
        try:
            for row, line in enumerate(read_lines(file)):
                text = normalize(line)
                yield Entry(f"{number}-{file.name}-{row}", str(file), text, duration_s=float(len(text)))
        except TextError as error:
            unreadable.append(Skipped(file.name, str(file), str(error)))
