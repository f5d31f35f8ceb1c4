"""What every data set is: an index, limits on it, and recordings read on demand.

A data set knows nothing of tokenizers or augmentation; ``PreparedDataset`` adds those.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from src.datasets.audio_io import load_audio, probe_duration
from src.datasets.index import Entry, Index, Skipped, build_index, file_version
from src.utils.errors import UserError


@dataclass(frozen=True)
class Utterance:
    """One recording with what is known of it; ``text`` is as the corpus has it, or None."""

    id: str
    audio: np.ndarray = field(repr=False)  # float32 [N], mono, 16 kHz
    text: str | None = None
    speaker: str | None = None
    path: str = ""


class SpeechDataset:
    """Recordings from a list of entries.

    A corpus whose audio is not in ordinary files overrides ``read_audio`` and ``probe``.

    Args:
        entries: what there is; durations that are not given are probed once and cached.
        skipped: what the corpus lists but cannot be used.
        name: of the index in the cache.
        limit: keep the first N only.
        min_duration_s, max_duration_s: leave out shorter and longer recordings (counted, not listed).

    ``shards`` says which shard each row is in, from 0 on, where the recordings come in shards: [rows].
    """

    shards: np.ndarray | None = None

    def __init__(
        self,
        entries: Sequence[Entry],
        skipped: Sequence[Skipped] = (),
        name: str = "corpus",
        limit: int | None = None,
        min_duration_s: float | None = None,
        max_duration_s: float | None = None,
    ) -> None:
        self._choose(
            build_index(entries, skipped, name, self.probe), name, limit, min_duration_s, max_duration_s
        )

    def _choose(
        self,
        index: Index,
        name: str,
        limit: int | None = None,
        min_duration_s: float | None = None,
        max_duration_s: float | None = None,
        among: np.ndarray | None = None,
    ) -> None:
        """Takes those rows of an index that are within the limits, out of ``among`` ([rows] bool) if given."""
        if limit is not None and limit < 1:
            raise UserError(f"limit={limit} must be at least 1")
        self.name = name
        self.index = index
        self.skipped = list(index.skipped)
        durations = index.durations
        keep = np.ones(len(durations), dtype=bool) if among is None else among.copy()
        offered = int(keep.sum())
        if min_duration_s is not None:
            keep &= durations >= min_duration_s
        if max_duration_s is not None:
            keep &= durations <= max_duration_s
        self.out_of_range = offered - int(keep.sum())
        self.rows = keep.nonzero()[0][:limit]
        self.durations = durations[self.rows]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def amount(self) -> str:
        """How much there is, in words."""
        return f"{len(self)} clips ({self.durations.sum() / 3600:.2f} h)"

    @property
    def ids(self) -> list[str]:
        return self.index.table["id"].take(self.rows).to_pylist()

    @property
    def texts(self) -> list[str | None]:
        return self.index.table["text"].take(self.rows).to_pylist()

    def entry(self, row: int) -> Entry:
        """What the index says of a row; reads no audio."""
        return Entry(**self.index.row(int(self.rows[row])))

    def version(self, row: int) -> tuple:
        """What changes when the recording of a row does: its file, that one's size and date."""
        path = self.entry(row).path
        return path, file_version(path)

    def __getitem__(self, row: int) -> Utterance:
        """Reads one recording. Raises ``AudioError`` when that fails."""
        entry = self.entry(row)
        return Utterance(entry.id, self.read_audio(entry), entry.text, entry.speaker, entry.path)

    def read_audio(self, entry: Entry) -> np.ndarray:
        """[N] float32, mono, 16 kHz. Raises ``AudioError``."""
        return load_audio(entry.path)

    def prefetch(self, row: int, epoch: int, seed: int) -> None:
        """Told before a row is read in the epoch that ``BucketBatchSampler`` shuffles with this seed."""

    def probe(self, entry: Entry) -> float:
        """Seconds of an entry that states no duration. Raises ``AudioError``."""
        return probe_duration(entry.path)

    def select(self, rows: Sequence[int]) -> SpeechDataset:
        """The same data set with these rows only."""
        chosen = object.__new__(type(self))
        chosen.__dict__.update(self.__dict__)
        chosen.rows = self.rows[np.asarray(rows, dtype=np.int64)]
        chosen.durations = self.durations[np.asarray(rows, dtype=np.int64)]
        if self.shards is not None:
            chosen.shards = self.shards[np.asarray(rows, dtype=np.int64)]
        return chosen
