"""One way for Lectern to say that something a person gave it cannot be used."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class UserError(Exception):
    """A mistake in the input. The message is one line: the file, the value and the remedy.

    The doors (``train.py``, ``inference.py``, ``calc_metrics.py``, ``scripts/``) print it without a
    traceback and exit with status 2.
    """

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(str(message).split()))


class AudioError(UserError):
    """One recording cannot be read. Callers skip the utterance and name it at the end."""


class TextError(UserError):
    """One transcript cannot be read or written with the tokenizer. Callers skip the utterance."""


@contextmanager
def spoken_errors() -> Iterator[None]:
    """Turns a ``UserError`` into ``error: ...`` on stderr and exit status 2.

    So it does with what the system refuses: a full disk, a folder without permission, a file in its place.

    >>> from src.utils.errors import UserError, spoken_errors
    >>> try:
    ...     with spoken_errors():
    ...         raise UserError("a.wav: empty file; remove it")
    ... except SystemExit as stop:
    ...     stop.code
    2
    """
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:  # who read our output has stopped, such as `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(141) from None
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        raise SystemExit(130) from None
    except (UserError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        raise SystemExit(2) from None


def door(main: Callable[[], None]) -> Callable[[], None]:
    """Decorates the ``main`` of a command so that its user errors are spoken, not thrown."""

    def wrapped() -> None:
        with spoken_errors():
            main()

    return wrapped
