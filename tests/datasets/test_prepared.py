"""Items and batches: addressed randomness, one bad recording never raises, padding."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from src.datasets import BucketBatchSampler, CustomDirDataset, PreparedDataset, Skipped, build_loader, collate
from src.loss import CTCObjective
from src.text_encoder import CharTextEncoder
from src.utils.errors import AudioError

ROOT = Path(__file__).parents[2]


def add_noise(audio: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return audio + rng.normal(0, 0.1, len(audio)).astype(np.float32)


@pytest.fixture
def folder(tmp_path, write_tone):
    (tmp_path / "transcriptions").mkdir()
    for n, text in enumerate(["Hello, world!", "it's 2", "", "the end"]):
        write_tone(tmp_path / f"audio/{n}.wav", seconds=0.1 + 0.05 * n)
        (tmp_path / f"transcriptions/{n}.txt").write_text(text)
    return tmp_path


def test_an_item(folder) -> None:
    encoder = CharTextEncoder()
    item = PreparedDataset(CustomDirDataset(folder), encoder, spec_draws=7)[0]
    assert item["utterance_id"] == "0" and item["text"] == "hello world"
    assert item["tokens"].dtype == torch.int64 and encoder.decode(item["tokens"].tolist()) == "hello world"
    assert item["audio"].shape == (1600,) and item["audio"].dtype == torch.float32
    assert item["spec_draws"].shape == (7,) and 0 <= item["spec_draws"].min() <= item["spec_draws"].max() < 1
    assert set(PreparedDataset(CustomDirDataset(folder))[0]) == {"utterance_id", "audio"}


def test_randomness_is_addressed(folder) -> None:
    def prepared(seed: int = 3, rows: list[int] | None = None) -> PreparedDataset:
        dataset = CustomDirDataset(folder)
        dataset = dataset if rows is None else dataset.select(rows)
        return PreparedDataset(dataset, CharTextEncoder(), add_noise, seed=seed, spec_draws=4)

    def same(a: dict, b: dict) -> list[bool]:
        return [torch.equal(a[key], b[key]) for key in ("audio", "spec_draws")]

    one = prepared()
    expected = one[(2, 1)]
    one[(2, 0)], one[(0, 1)]  # what was read before changes nothing
    assert same(one[(2, 1)], expected) == same(prepared(rows=[3, 1])[(2, 1)], expected) == [True, True]
    assert same(one[(1, 1)], expected) == same(prepared(seed=4)[(2, 1)], expected) == [False, False]
    assert same(one[1], one[(0, 1)]) == [True, True]


def test_workers_change_nothing(folder) -> None:
    def batches(num_workers: int) -> list[dict]:
        prepared = PreparedDataset(
            CustomDirDataset(folder), CharTextEncoder(), add_noise, seed=3, spec_draws=4
        )
        sampler = BucketBatchSampler(prepared.dataset.durations, batch_size=2, shuffle=True, seed=1)
        loader = build_loader(prepared, sampler, num_workers)
        found = []
        for epoch in range(2):
            sampler.set_epoch(epoch)
            found += list(loader)
        return found

    alone, together = batches(0), batches(2)
    assert len(alone) == len(together) == 4
    for a, b in zip(alone, together, strict=True):
        assert a["utterance_id"] == b["utterance_id"]
        assert torch.equal(a["audio"], b["audio"]) and torch.equal(a["spec_draws"], b["spec_draws"])


HELD = """
import multiprocessing, os, signal, sys
from src.datasets import BucketBatchSampler, CustomDirDataset, PreparedDataset, build_loader
from src.utils.errors import UserError, spoken_errors

prepared = PreparedDataset(CustomDirDataset(sys.argv[1]))
held = iter(build_loader(prepared, BucketBatchSampler(prepared.dataset.durations, batch_size=1), 1))
next(held)
(worker,) = multiprocessing.active_children()
os.kill(worker.pid, signal.SIGTERM)
print(sum(1 for batch in held))
with spoken_errors():
    raise UserError("what a search refuses")
"""


def test_a_worker_outlives_sigterm_but_not_its_parent(folder) -> None:
    """Though something holds the loader's iterator when the interpreter ends, such as an error's traceback."""
    command = [sys.executable, "-c", HELD, folder]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (2, "3\n"), done.stderr
    assert done.stderr == "error: what a search refuses\n"


def test_what_cannot_be_used_is_skipped_with_its_reason(folder, write_tone) -> None:
    (folder / "transcriptions/1.txt").write_bytes(b"\xff\xff")
    (folder / "transcriptions/3.txt").write_text("привет")
    dataset = CustomDirDataset(folder)
    (folder / "audio/0.wav").unlink()
    prepared = PreparedDataset(dataset, CharTextEncoder())
    skipped = [prepared[row] for row in (0, 1, 3)]
    assert all(isinstance(item, Skipped) for item in skipped) and [item.id for item in skipped] == [
        "0",
        "1",
        "3",
    ]
    assert "no such file" in skipped[0].reason and "transcript" in skipped[1].reason
    assert "привет"[0] in skipped[2].reason or "no token" in skipped[2].reason
    batch = collate([prepared[row] for row in range(4)])
    assert batch["utterance_id"] == ["2"] and batch["skipped"] == skipped
    assert not isinstance(PreparedDataset(dataset)[1], Skipped)  # transcription needs no text


def test_an_augmentation_that_cannot_read_its_noise_costs_one_utterance(folder) -> None:
    def broken(audio: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        raise AudioError("noise.wav: no such file")

    item = PreparedDataset(CustomDirDataset(folder), CharTextEncoder(), broken)[0]
    assert isinstance(item, Skipped) and "noise.wav" in item.reason


def test_collate_pads_with_zeros() -> None:
    items = [
        {"utterance_id": name, "audio": torch.ones(n), "tokens": torch.arange(1, u + 1), "text": name * u}
        for name, n, u in (("a", 3, 0), ("b", 5, 2))
    ]
    skipped = Skipped("c", "c.wav", "broken")
    batch = collate([items[0], skipped, items[1]])
    assert batch["audio"].tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]
    assert batch["tokens"].tolist() == [[0, 0], [1, 2]] and batch["tokens"].dtype == torch.int64
    assert batch["audio_lengths"].tolist() == [3, 5] and batch["token_lengths"].tolist() == [0, 2]
    assert batch["audio_lengths"].dtype == batch["token_lengths"].dtype == torch.int64
    assert (
        batch["utterance_id"] == ["a", "b"] and batch["text"] == ["", "bb"] and batch["skipped"] == [skipped]
    )
    assert collate([skipped]) == {"skipped": [skipped]}


def test_a_batch_of_silence_only_trains(folder) -> None:
    """An empty transcript is a legal target: every frame should be blank."""
    item = PreparedDataset(CustomDirDataset(folder), CharTextEncoder())[2]
    assert item["text"] == "" and item["tokens"].shape == (0,) and item["tokens"].dtype == torch.int64
    batch = collate([item, item])
    assert batch["tokens"].shape == (2, 1) and batch["token_lengths"].tolist() == [0, 0]
    log_probs = torch.full((2, 4, 29), 1 / 29).log()
    losses = CTCObjective()(log_probs=log_probs, log_prob_lengths=torch.tensor([4, 3]), **batch)
    assert losses["loss_sum"].item() == pytest.approx(7 * np.log(29), rel=1e-5)
    assert not losses["too_short"].any()
