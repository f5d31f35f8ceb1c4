"""Memory: how much is used, knowing that it ran out, and cutting a batch in two."""

from __future__ import annotations

import re
import resource
import sys
import weakref
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from src.utils.audio import SAMPLE_RATE

WORDS = re.compile("out of memory|allocate memory|alloc_failed|tried to allocate", re.IGNORECASE)


def is_out_of_memory(error: Exception) -> bool:
    """True for Python's error, and for the RuntimeErrors of CUDA's and the CPU's allocators."""
    return isinstance(error, MemoryError) or bool(WORDS.search(str(error)))


def peak_memory(device: torch.device) -> int:
    """Most bytes so far: of tensors on a GPU (since ``reset_peak_memory_stats``), of this whole process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


class SavedForBackward(saved_tensors_hooks):
    """``with SavedForBackward() as saved``: knows afterwards what autograd kept for the backward pass.

    >>> weight = torch.ones(10, requires_grad=True)
    >>> with SavedForBackward() as saved:
    ...     loss = (weight * torch.ones(10)).exp().sum()
    >>> saved.bytes_without([weight])
    80
    """

    def __init__(self) -> None:
        self.storages: dict[int, int] = {}
        super().__init__(self._pack, lambda tensor: tensor)

    def __enter__(self) -> SavedForBackward:
        super().__enter__()
        return self

    def _pack(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        self.storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    def bytes_without(self, weights: Iterable[Tensor]) -> int:
        """Bytes of all that was kept, each storage once, but these tensors."""
        others = {weight.untyped_storage().data_ptr() for weight in weights}
        return sum(size for pointer, size in self.storages.items() if pointer not in others)


class LiveTensors(TorchDispatchMode):
    """``with LiveTensors(stage) as live``: knows afterwards how many bytes of tensors lived at once, by stage.

    Every tensor that an operator makes counts from then on until nobody holds it; what a kernel needs for itself does
    not. The same on a CPU and a GPU.

    Args:
        stage: says in which one the work is.
        ignored: tensors that were there before, such as the weights.

    >>> with LiveTensors(lambda: "only") as live:
    ...     first = torch.ones(10)
    ...     second = (first + 1) * 2  # while this is made, three of them are there
    >>> live.peaks
    {'only': 120}
    """

    def __init__(self, stage: Callable[[], str], ignored: Iterable[Tensor] = ()) -> None:
        super().__init__()
        self.stage, self.bytes = stage, 0
        self.peaks: dict[str, int] = {}
        self.known = {tensor.untyped_storage().data_ptr() for tensor in ignored}

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = kwargs or {}
        with self:  # what is made of several operators is seen operator by operator
            result = function.decompose(*args, **kwargs)
        if result is not NotImplemented:
            return result
        result = function(*args, **kwargs)
        for value in tree_leaves(result):
            if isinstance(value, Tensor):
                self._count(value.untyped_storage())
        stage = self.stage()
        self.peaks[stage] = max(self.peaks.get(stage, 0), self.bytes)
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        pointer, size = storage.data_ptr(), storage.nbytes()
        if size and pointer not in self.known:
            self.known.add(pointer)
            self.bytes += size
            weakref.finalize(storage, self._forget, pointer, size)

    def _forget(self, pointer: int, size: int) -> None:
        self.known.discard(pointer)
        self.bytes -= size


def in_memory(
    compute: Callable[[dict], Any], batch: dict[str, Any]
) -> tuple[list[tuple[dict, Any]], dict[str, float]]:
    """``compute(batch)``, by halves where the memory does not do for all.

    Returns each part of the batch with what was computed of it, and the seconds of clips that do not fit even alone.
    """
    try:
        return [(batch, compute(batch))], {}
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    # Only here, without the error's traceback, is all that it held on to free again.
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if len(batch["utterance_id"]) == 1:
        return [], too_long(batch)
    done, left_out = [], {}
    for half in halves(batch):
        done_of_half, left_out_of_half = in_memory(compute, half)
        done += done_of_half
        left_out |= left_out_of_half
    return done, left_out


def too_long(batch: dict[str, Any]) -> dict[str, float]:
    """The one clip of a batch, by id, and its seconds (0 of a text)."""
    return {batch["utterance_id"][0]: int(batch.get("audio_lengths", [0])[0]) / SAMPLE_RATE}


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
        if "audio" in half:  # a language model's batch is text alone
            half["audio"] = half["audio"][:, : int(half["audio_lengths"].max())]
        parts.append(half)
    return parts
