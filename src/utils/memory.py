"""Memory: how much is used, knowing that it ran out, and cutting a batch in two."""

from __future__ import annotations

import re
import sys
from typing import Any

import torch

WORDS = re.compile("out of memory|allocate memory|alloc_failed|tried to allocate", re.IGNORECASE)


def is_out_of_memory(error: Exception) -> bool:
    """True for Python's error, and for the RuntimeErrors of CUDA's and the CPU's allocators."""
    return isinstance(error, MemoryError) or bool(WORDS.search(str(error)))


def peak_memory(device: torch.device) -> int:
    """Most bytes so far: of tensors on a GPU (since ``reset_peak_memory_stats``), of this whole process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    import resource  # Windows has none

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def halves(batch: dict[str, Any]) -> list[dict[str, Any]]:
    """A collated batch of two clips or more as two, each padded to its own longest clip.

    >>> import torch
    >>> batch = {"utterance_id": ["a", "b"], "audio": torch.zeros(2, 9), "audio_lengths": torch.tensor([4, 9])}
    >>> [(half["utterance_id"], half["audio"].shape) for half in halves(batch)]
    [(['a'], torch.Size([1, 4])), (['b'], torch.Size([1, 9]))]
    """
    middle = len(batch["utterance_id"]) // 2
    parts = []
    for rows in (slice(middle), slice(middle, None)):
        half = {key: value[rows] for key, value in batch.items() if key != "skipped"}
        half["audio"] = half["audio"][:, : int(half["audio_lengths"].max())]
        parts.append(half)
    return parts
