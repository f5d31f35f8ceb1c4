"""What ends a run before its end: Ctrl-C, SIGTERM or its time limit, between two steps, where its state is whole."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from types import FrameType

TIME_LIMIT = "trainer.time_limit"


class Interrupted(Exception):
    """A run that stopped before its end and was saved.

    ``status`` is the exit status that tells it: 130 after a signal, 75 ("try again later") at the time limit.
    """

    def __init__(self, reason: str, step: int) -> None:
        super().__init__(f"stopped at step {step} ({reason})")
        self.status = 75 if reason == TIME_LIMIT else 130


class Interruption:
    """``with Interruption(time_limit_s) as interruption``: ``reason`` is None until something asks for a stop.

    A signal is acknowledged at once, through ``tell``. A second Ctrl-C is immediate.
    """

    NAMES = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}

    def __init__(
        self, time_limit_s: float | None = None, tell: Callable[[str], None] = lambda line: None
    ) -> None:
        self.deadline = None if time_limit_s is None else time.monotonic() + time_limit_s
        self.signal: int | None = None
        self.tell = tell

    @property
    def reason(self) -> str | None:
        if self.signal is not None:
            return self.NAMES[self.signal]
        over = self.deadline is not None and time.monotonic() >= self.deadline
        return TIME_LIMIT if over else None

    def __enter__(self) -> Interruption:
        # Only a process's main thread may set handlers; elsewhere (a notebook's worker) signals stay as they are.
        self.installed = threading.current_thread() is threading.main_thread()
        if self.installed:
            self.previous = {number: signal.signal(number, self._request) for number in self.NAMES}
        return self

    def __exit__(self, *_: object) -> None:
        if self.installed:
            for number, handler in self.previous.items():
                signal.signal(number, handler)

    def _request(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = number
        again = "; Ctrl-C again stops at once, unsaved" if number == signal.SIGINT else ""
        self.tell(f"{self.NAMES[number]}: stopping after this step or evaluation, and saving{again}")
