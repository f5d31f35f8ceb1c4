"""``train.py`` in which the last process is killed at its third step, the first time it is started."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import train
from src.trainer.optimization import Optimization

run = Optimization.run


def dying(self, group, number):
    processes = self.processes
    if (
        number == 2
        and processes.rank == processes.count - 1
        and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0"
    ):
        os.kill(os.getpid(), signal.SIGKILL)
    return run(self, group, number)


if __name__ == "__main__":
    Optimization.run = dying
    train.main()
