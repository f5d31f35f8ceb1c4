"""scripts/find_batch_size.py: as many clips as the memory holds, and the settings that say so."""

from __future__ import annotations

import shlex
import sys

import pytest
import torch

from scripts import find_batch_size
from src.datasets import BatchLimits
from src.utils.errors import UserError
from src.utils.hydra_door import compose
from tests.conftest import SMALL


@pytest.mark.parametrize("most", [0, 1, 2, 7, 100, 900, 5000])
def test_the_search_on_memory_that_grows_with_the_clips(most):
    """Close to the best from below, and never beyond the limit: on a CPU that would be the end of the machine."""
    tried = []

    def peak(clips: int) -> int:
        tried.append(clips)
        return 500 + 10 * clips

    clips, used = find_batch_size.largest_batch(peak, limit=505 + 10 * most, most=1024)
    best = min(most, 1024)
    assert best - best // 20 <= clips <= best and used == 500 + 10 * clips
    assert max(tried) <= max(1, best) and len(tried) < 10


@pytest.mark.parametrize("most", [0, 3, 50, 333])
def test_the_search_where_steps_run_out_of_memory_earlier_than_foreseen(most):
    clips, _ = find_batch_size.largest_batch(lambda n: 500 + n if n <= most else None, limit=10**6)
    assert most - most // 20 - 1 <= clips <= most


def test_a_model_that_is_too_large_by_itself_is_one_line():
    with pytest.raises(UserError, match="model alone takes 2.00 GB of the 1.00 GB"):
        find_batch_size.largest_batch(lambda clips: int(2e9), limit=1e9)
    with pytest.raises(UserError, match="model alone takes more of"):
        find_batch_size.largest_batch(lambda clips: None, limit=1e9)


@pytest.mark.parametrize("accumulate", [1, 3])
def test_a_step_is_a_real_one_and_one_that_is_cut_in_two_does_not_fit(make_trainer, accumulate):
    trainer = make_trainer("transforms=light", f"trainer.accumulate={accumulate}")
    before = {name: value.clone() for name, value in trainer.step.named_parameters()}
    assert find_batch_size.memory_of_a_step(trainer, 1.0, 4) > 0
    assert all(not torch.equal(value, before[name]) for name, value in trainer.step.named_parameters())

    def two_clips_at_most(module, inputs):
        if len(inputs[0]) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 TiB")

    trainer.step.model.frontend.register_forward_pre_hook(two_clips_at_most)
    fits = [find_batch_size.memory_of_a_step(trainer, 1.0, clips) is not None for clips in (0, 1, 2, 3)]
    assert fits == [True, True, True, False]


def test_clips_grow_by_slower_speech_only(make_trainer):
    assert find_batch_size.stretch(make_trainer().train_loader.dataset) == 1.0
    light = make_trainer("transforms=light").train_loader.dataset
    assert find_batch_size.stretch(light) == pytest.approx(1 / 0.9, abs=0.01)


def test_the_settings_are_what_train_py_understands():
    table, seconds = find_batch_size.settings({2.5: 41, 5.0: 20, 10.0: 10})
    config = compose("conformer_ctc", shlex.split(table))
    assert BatchLimits(**config.batching).clips_by_length == {2.5: 41, 5: 20, 10: 10}
    assert compose("conformer_ctc", seconds.split()).batching.max_batch_duration_s == 100
    assert len(find_batch_size.settings({5.0: 40, 10.0: 12})) == 1  # far from proportional


@pytest.fixture
def find(monkeypatch):
    def call(*words: str) -> None:
        monkeypatch.setattr(sys, "argv", ["find_batch_size.py", "-cn=one_batch", *SMALL, *words])
        find_batch_size.main()

    return call


def test_the_table_on_a_cpu(find, capsys):
    find("--lengths", "0.1", "--memory-gb", "50")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("of 50.00 GB on cpu") and lines[2].split()[:3] == ["0.1", "s", "1024"]
    assert '"batching.clips_by_length={0.1: 1024}"' in lines[-1]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ([], "on a CPU say how much memory"),
        (["--memory-gb", "-1"], "--memory-gb -1.0: give a number above 0"),
        (["--memory-gb", "4", "--lengths", "5,x"], "--lengths 5,x: give seconds of at least 0.1"),
        (["--memory-gb", "4", "model.encoder.dimm=8"], "did you mean model.encoder.dim?"),
    ],
)
def test_mistakes_are_one_line(find, capsys, words, line):
    with pytest.raises(SystemExit) as stop:
        find(*words)
    error = capsys.readouterr().err
    assert stop.value.code == 2 and error.count("\n") == 1 and line in error
