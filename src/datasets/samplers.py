"""Batches of clips of similar length: little padding, and a size that memory can bear."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from torch.utils.data import Sampler

from src.utils.build import Count, Positive, check_fields
from src.utils.errors import UserError
from src.utils.seeding import addressed_rng

WINDOW = 1024  # clips are sorted by length among this many neighbours of the shuffled order


@dataclass(frozen=True)
class BatchLimits:
    """The ``batching:`` node of a config; see ``BucketBatchSampler``."""

    batch_size: Count | None = None
    max_batch_duration_s: Positive | None = None

    def __post_init__(self) -> None:
        check_fields(self, "batching.")
        if not (self.batch_size or self.max_batch_duration_s):
            raise UserError("batching: neither batch_size nor max_batch_duration_s is set; set one of them")


class BucketBatchSampler(Sampler[list[tuple[int, int]]]):
    """Yields lists of (epoch, row). The batches of an epoch are a pure function of (seed, epoch).

    Args:
        durations: [rows] seconds.
        batch_size: most clips of a batch.
        max_batch_duration_s: most seconds of padded audio (clips x longest); a longer clip is alone in its
            batch.
        shuffle: shuffled windows sorted by length, batches shuffled; otherwise all clips, longest first.
        seed: addresses the shuffles.
        rank, processes: of several processes, this one yields every ``processes``-th batch, from its ``rank`` on.
    """

    def __init__(
        self,
        durations: Sequence[float] | np.ndarray,
        batch_size: int | None = None,
        max_batch_duration_s: float | None = None,
        shuffle: bool = False,
        seed: int = 0,
        rank: int = 0,
        processes: int = 1,
    ) -> None:
        BatchLimits(batch_size, max_batch_duration_s)  # checks them
        self.durations = np.asarray(durations, dtype=np.float64)
        self.batch_size = batch_size
        self.max_batch_duration_s = max_batch_duration_s
        self.shuffle = shuffle
        self.seed = seed
        self.rank, self.processes = rank, processes
        self.set_epoch(0)

    def set_epoch(self, epoch: int, position: int = 0) -> None:
        """Which epoch the next iteration yields, and how many of its batches all processes have done already."""
        self.epoch, self.position = epoch, position
        self._current = self.batches(epoch)

    def batches(self, epoch: int) -> list[list[int]]:
        """All batches of an epoch, as rows."""
        count = len(self.durations)
        if not self.shuffle:
            return self._cut(np.argsort(-self.durations, kind="stable"))
        rng = addressed_rng(self.seed, "batches", epoch)
        order = rng.permutation(count)
        batches = []
        for start in range(0, count, WINDOW):
            window = order[start : start + WINDOW]
            batches += self._cut(window[np.argsort(self.durations[window], kind="stable")])
        return [batches[i] for i in rng.permutation(len(batches))]

    def _cut(self, rows: np.ndarray) -> list[list[int]]:
        batches: list[list[int]] = []
        longest = 0.0
        for row in rows.tolist():
            longest = max(longest, self.durations[row])
            full = not batches or (self.batch_size is not None and len(batches[-1]) >= self.batch_size)
            limit = self.max_batch_duration_s
            if full or (limit is not None and (len(batches[-1]) + 1) * longest > limit):
                batches.append([])
                longest = self.durations[row]
            batches[-1].append(row)
        return batches

    def __len__(self) -> int:
        """Batches of the current epoch for all processes, done ones included."""
        return len(self._current)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for batch in self._current[self.position + self.rank :: self.processes]:
            yield [(self.epoch, row) for row in batch]
