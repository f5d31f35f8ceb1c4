"""Ctrl-C and SIGTERM end a run between two optimizer steps, where its state is whole."""

from __future__ import annotations

import signal
import threading
from types import FrameType


class StopSignals:
    """``with StopSignals() as stop``: the first signal sets ``stop.requested``; a second Ctrl-C is immediate."""

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.requested = False

    def __enter__(self) -> StopSignals:
        # Only a process's main thread may set handlers; elsewhere (a notebook's worker) signals stay as they are.
        self.installed = threading.current_thread() is threading.main_thread()
        if self.installed:
            self.previous = {number: signal.signal(number, self._request) for number in self.SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        if self.installed:
            for number, handler in self.previous.items():
                signal.signal(number, handler)

    def _request(self, number: int, frame: FrameType | None) -> None:
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.requested = True
