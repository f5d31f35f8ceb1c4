"""Progress bars: lively on a terminal, a line now and then in a log file."""

from __future__ import annotations

import functools
import sys

from tqdm import tqdm

progress_bar = functools.partial(tqdm, mininterval=0.1 if sys.stderr.isatty() else 10)
