"""Batches of clips of similar length: little padding, and a size that memory can bear."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch.utils.data import Sampler

from src.utils.build import Count, Positive, check
from src.utils.errors import UserError
from src.utils.seeding import addressed_rng

MOST = 1 << 40  # clips of a batch, or their seconds, where nothing limits them
WINDOW = 1024  # clips are sorted by length among this many neighbours of the shuffled order
MIXED_SHARDS = 4  # so many shards are read at a time, when the corpus comes in shards


@dataclass(frozen=True)
class BatchLimits:
    """The ``batching:`` node of a config; see ``BucketBatchSampler``."""

    batch_size: Count | None = None
    max_batch_duration_s: Positive | None = None
    clips_by_length: dict | None = None

    def __post_init__(self) -> None:
        check("batching.batch_size", self.batch_size, Count | None)
        check("batching.max_batch_duration_s", self.max_batch_duration_s, Positive | None)
        if self.clips_by_length is not None and not isinstance(self.clips_by_length, Mapping):
            raise UserError(
                f"batching.clips_by_length={self.clips_by_length} must be a mapping like {{5: 40, 10: 18}}"
            )
        for length, clips in (self.clips_by_length or {}).items():
            check("batching.clips_by_length: a length in seconds", length, Positive)
            check(f"batching.clips_by_length.{length}", clips, Count)
        if not (self.batch_size or self.max_batch_duration_s or self.clips_by_length):
            raise UserError(
                "batching: neither batch_size, max_batch_duration_s nor clips_by_length is set; set one of them"
            )

    def most_clips(self, longest: np.ndarray) -> np.ndarray:
        """How many clips a batch may hold whose longest has so many seconds; at least one."""
        most = np.full(len(longest), self.batch_size or MOST)
        if self.max_batch_duration_s:
            limit = min(self.max_batch_duration_s, MOST)
            fit = np.floor(limit / np.maximum(longest, 1e-3)).astype(np.int64)
            fit += (fit + 1) * longest <= limit  # a division rounds, and the limit itself is allowed
            fit -= fit * longest > limit
            most = np.minimum(most, fit)
        if self.clips_by_length:
            lengths, clips = zip(*sorted(self.clips_by_length.items()), strict=True)
            most = np.minimum(most, np.array([*clips, 1])[np.searchsorted(lengths, longest)])
        return np.maximum(most, 1)


class BucketBatchSampler(Sampler[list[tuple[int, int]]]):
    """Yields lists of (epoch, row). The batches of an epoch are a pure function of (seed, epoch).

    Args:
        durations: [rows] seconds.
        batch_size: most clips of a batch.
        max_batch_duration_s: most seconds of padded audio (clips x longest); a longer clip is alone in its
            batch.
        clips_by_length: seconds -> most clips of a batch whose longest clip has at most so many; a clip longer
            than all of these is alone. ``scripts/find_batch_size.py`` measures them.
        shuffle: shuffled windows sorted by length, batches shuffled; otherwise all clips, longest first.
        seed: addresses the shuffles.
        rank, processes: of several processes, this one yields every ``processes``-th batch, from its ``rank`` on.
        shards: [rows] which shard each clip is in. Shuffled epochs then pass through the shards in the order
            ``shard_order`` gives, mixing the clips of a few at a time.
    """

    def __init__(
        self,
        durations: Sequence[float] | np.ndarray,
        batch_size: int | None = None,
        max_batch_duration_s: float | None = None,
        clips_by_length: Mapping[float, int] | None = None,
        shuffle: bool = False,
        seed: int = 0,
        rank: int = 0,
        processes: int = 1,
        shards: np.ndarray | None = None,
    ) -> None:
        limits = BatchLimits(batch_size, max_batch_duration_s, clips_by_length)
        self.durations = np.asarray(durations, dtype=np.float64)
        self.most_clips = limits.most_clips(self.durations)
        self.shuffle = shuffle
        self.seed = seed
        self.rank, self.processes = rank, processes
        self.shards = shards
        self.set_epoch(0)

    def set_epoch(self, epoch: int, position: int = 0) -> None:
        """Which epoch the next iteration yields, and how many of its batches all processes have done already."""
        self.epoch, self.position = epoch, position
        self._order, self._bounds = self._plan(epoch)

    def _plan(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """All rows in the order of an epoch, and where in it its batches begin and end: [batches, 2]."""
        count = len(self.durations)
        if not self.shuffle:
            order = np.argsort(-self.durations, kind="stable")
            return order, self._cut(order, count)
        rng = addressed_rng(self.seed, "batches", epoch)
        order = rng.permutation(count)
        if self.shards is not None:
            places = np.argsort(shard_order(self.seed, epoch, int(self.shards.max(initial=-1)) + 1))
            spread = places[self.shards[order]] + MIXED_SHARDS * rng.random(count)
            order = order[np.argsort(spread, kind="stable")]
        window = np.arange(count) // WINDOW
        order = order[np.lexsort((-self.durations[order], window))]
        bounds = self._cut(order, WINDOW)
        shuffled = rng.permutation(len(bounds))
        if self.shards is not None:  # batches stay in their window, and so near the shards they need
            shuffled = shuffled[np.argsort(bounds[shuffled, 0] // WINDOW, kind="stable")]
        return order, bounds[shuffled]

    def _cut(self, order: np.ndarray, window: int) -> np.ndarray:
        """Batches of ``order``, whose windows each begin with their longest clip: [batches, 2]."""
        most = self.most_clips[order].tolist()
        starts, start = [], 0
        while start < len(most):
            starts.append(start)
            start += min(most[start], window - start % window)
        return np.stack([starts, [*starts[1:], len(most)][: len(starts)]], axis=1).astype(np.int64)

    def __len__(self) -> int:
        """Batches of the current epoch for all processes, done ones included."""
        return len(self._bounds)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        epoch, order = self.epoch, self._order
        for start, end in self._bounds[self.position + self.rank :: self.processes]:
            yield [(epoch, row) for row in order[start:end].tolist()]


def shard_order(seed: int, epoch: int, shards: int) -> np.ndarray:
    """The order in which an epoch comes to the shards: [shards] numbers of shards."""
    return addressed_rng(seed, "shards", epoch).permutation(shards)
