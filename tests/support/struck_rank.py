"""``train.py`` in which, at its third step, the first time it is started, a signal strikes.

``STRIKE=process`` kills the last process (SIGKILL); ``STRIKE=launcher`` asks torchrun to end (SIGTERM), as clusters do.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import train
from src.trainer.optimization import Optimization

run = Optimization.run


def struck(self, group, number):
    is_last = self.processes.rank == self.processes.count - 1
    if number == 2 and is_last and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
        if os.environ["STRIKE"] == "process":
            os.kill(os.getpid(), signal.SIGKILL)
        os.kill(os.getppid(), signal.SIGTERM)
    return run(self, group, number)


if __name__ == "__main__":
    Optimization.run = struck
    train.main()
