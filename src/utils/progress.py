"""Progress bars: lively on a terminal, a line now and then in a log file."""

from __future__ import annotations

import sys
from typing import Any

from tqdm import tqdm

# No thread of its own: in CPython 3.11 a process that forks workers while another thread comes or goes may hang.
tqdm.monitor_interval = 0


def progress_bar(*args: Any, leave: bool = True, disable: bool = False, **options: Any) -> tqdm:
    """``tqdm``; in a log file at most every ten seconds, and not at all where it would be wiped away (``leave``)."""
    is_terminal = sys.stderr.isatty()
    seconds = 0.1 if is_terminal else 10
    return tqdm(
        *args, leave=leave, disable=disable or not (leave or is_terminal), mininterval=seconds, **options
    )
