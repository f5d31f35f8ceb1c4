"""Several processes that train one model (``torchrun``): who is who, and what they tell each other.

Gradients travel through PyTorch's DistributedDataParallel; here are the small things that all must agree on. They go
through gloo on the host, so that no GPU waits for them.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist

from src.utils.errors import UserError


class Processes:
    """This process among all; alone it costs nothing.

    >>> alone = Processes()
    >>> alone.count, alone.is_first, alone.gather("a"), alone.from_first("b")
    (1, True, ['a'], 'b')
    """

    def __init__(self) -> None:
        self.rank, self.count = 0, 1
        self.messages: dist.ProcessGroup | None = None

    @classmethod
    def join(cls, device: torch.device) -> Processes:
        """Meets the others that ``torchrun`` started; a process that nobody started is alone."""
        processes = cls()
        if "TORCHELASTIC_RUN_ID" not in os.environ or int(os.environ["WORLD_SIZE"]) == 1:
            return processes
        if device.type == "cuda":
            torch.cuda.set_device(device)  # also for the threads that pin memory
        if not dist.is_initialized():
            store, rank, count = next(iter(dist.rendezvous("env://")))
            # torchrun's store outlives a restart, and with it the addresses of the processes before.
            store = dist.PrefixStore(os.environ["TORCHELASTIC_RESTART_COUNT"], store)
            backend = "nccl" if device.type == "cuda" else "gloo"
            dist.init_process_group(backend, store=store, rank=rank, world_size=count)
        processes.rank, processes.count = dist.get_rank(), dist.get_world_size()
        processes.messages = dist.new_group(backend="gloo")
        # A gloo thread that lets go of its last message while the interpreter ends would abort the process.
        atexit.register(processes.leave)
        return processes

    def leave(self) -> None:
        """Ends the threads that carry messages; nothing can be said afterwards."""
        self.messages = None
        if dist.is_initialized():
            dist.destroy_process_group()

    @property
    def is_first(self) -> bool:
        """Whether this one writes files and speaks."""
        return self.rank == 0

    def gather(self, value: Any) -> list[Any]:
        """Everybody's value, by rank. Raises ``UserError`` when one of the others is gone."""
        if self.count == 1:
            return [value]
        values = [None] * self.count
        with other_processes_may_end():
            dist.all_gather_object(values, value, group=self.messages)
        return values

    def from_first(self, value: Any) -> Any:
        """The first one's value."""
        if self.count == 1:
            return value
        values = [value]
        with other_processes_may_end():
            dist.broadcast_object_list(values, src=0, group=self.messages)
        return values[0]


@contextmanager
def other_processes_may_end() -> Iterator[None]:
    """What a process sees of another one's end, in one line."""
    try:
        yield
    except RuntimeError as error:
        detail = str(error).splitlines()[0][:100]
        raise UserError(
            f"another process of this training ended ({detail}); its own message tells why; go on with the same "
            f"command and trainer.resume_from=auto"
        ) from None
