"""kill -9 at any moment, again and again: the run ends with the bits of a run that nobody touched.

The fast suite kills a few times; LECTERN_KILLS=100 makes it a hundred for each setting.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import sys
import threading
import time

import pytest
import torch
from tqdm import tqdm

from src.utils.state_files import load_state

KILLS = int(os.environ.get("LECTERN_KILLS", 4))
STEPS = 40
COMMON = [
    f"trainer.max_steps={STEPS}",
    "trainer.evaluate_every_epochs=null",
    "trainer.evaluate_every_steps=7",
    "trainer.monitor=loss",
    "trainer.save_every=0.02s",
    "trainer.ema_decay=0.9",
    "model.encoder.dropout=0.1",
    "batching.batch_size=2",
    "trainer.resume_from=auto",
    "optimizer.lr=0.01",
]
SETTINGS = {
    "plain": [],
    "bf16, accumulated, two workers": ["trainer.precision=bf16", "trainer.accumulate=2", "num_workers=2"],
}


def finished_state(trainer) -> dict:
    """All that a run's last checkpoint keeps, but the clock."""
    state = load_state(trainer.folder.newest() / "training" / "state")
    assert state["counters"]["steps"] == STEPS
    del state["counters"]["seconds"]
    return state


def flat(tree, path=()):
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from flat(value, (*path, key))
    elif isinstance(tree, list | tuple):
        for position, value in enumerate(tree):
            yield from flat(value, (*path, position))
    else:
        yield path, tree


def assert_same_bits(ours, theirs) -> None:
    ours, theirs = dict(flat(ours)), dict(flat(theirs))
    assert ours.keys() == theirs.keys()
    for path, value in ours.items():
        same = torch.equal(value, theirs[path]) if isinstance(value, torch.Tensor) else value == theirs[path]
        assert same, path


@pytest.mark.skipif(
    sys.platform == "darwin", reason="processes are forked here, which macOS's libraries forbid"
)
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_killed_at_random_moments_a_run_ends_with_the_same_bits(make_trainer, settings):
    started = time.monotonic()
    untouched = make_trainer(*COMMON, *settings, "run_name=untouched")
    untouched.run()
    duration = time.monotonic() - started

    expected = finished_state(untouched)

    def start(name: str) -> None:
        tqdm.set_lock(threading.RLock())  # the usual one is shared with the killed, who may have held it
        make_trainer(*COMMON, *settings, name).run()

    fork, moments = multiprocessing.get_context("fork"), random.Random(0)
    kills = runs = 0
    finished = False
    while kills < KILLS or not finished:
        name = f"run_name=killed{runs}"  # a run that got to its end is compared, and another one begun
        process = fork.Process(target=start, args=(name,))
        process.start()
        process.join(None if kills >= KILLS else moments.uniform(0, duration))
        if process.exitcode is None:
            process.kill()
            process.join()
            kills, finished = kills + 1, False
            continue
        assert process.exitcode == 0
        assert_same_bits(finished_state(make_trainer(*COMMON, *settings, name)), expected)
        runs, finished = runs + 1, True
