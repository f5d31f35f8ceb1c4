"""A tiny corpus, and a checkpoint trained on it through the doors, shared by the tests of the doors."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

ROOT = Path(__file__).resolve().parents[2]
WORDS = {"low": 300.0, "mid": 900.0, "high": 2400.0}


def tone_clip(text: str, seed: int) -> np.ndarray:
    """Half a second of a tone per word, with gaps: speech enough for a network to learn in seconds."""
    rng = np.random.default_rng(seed)
    pieces = []
    for word in text.split():
        t = np.arange(8000) / 16000
        pieces += [0.3 * np.sin(2 * np.pi * WORDS[word] * rng.uniform(0.97, 1.03) * t), np.zeros(1600)]
    audio = np.concatenate(pieces)
    return (audio + 0.003 * rng.standard_normal(len(audio))).astype(np.float32)


def write_corpus(folder: Path, texts: list[str], seed: int = 0) -> Path:
    """A custom directory of tone clips: audio/clip-N.flac, transcriptions/clip-N.txt."""
    (folder / "audio").mkdir(parents=True)
    (folder / "transcriptions").mkdir()
    for n, text in enumerate(texts):
        sf.write(folder / "audio" / f"clip-{n}.flac", tone_clip(text, seed + n), 16000)
        (folder / "transcriptions" / f"clip-{n}.txt").write_text(text.upper() + "\n", encoding="utf-8")
    return folder


def door(*arguments: str, code: int = 0, **environment: str) -> subprocess.CompletedProcess:
    """Runs ``python ARGUMENTS`` in the clone as a user would; the exit status must be ``code``."""
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == code, f"exit {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    assert "Traceback" not in done.stderr, done.stderr[-3000:]
    return done


@pytest.fixture(scope="session")
def corpus(tmp_path_factory) -> Path:
    texts = ["low high", "mid", "high low mid", "low low", "mid high", "high", "mid mid low", "low"]
    return write_corpus(tmp_path_factory.mktemp("corpus"), texts)


TINY = [
    "-cn=one_batch",
    "model=conformer_ctc_tiny",
    "model.encoder.dim=48",
    "model.encoder.num_layers=1",
    "model.encoder.subsampling_channels=8",
    "batching.batch_size=8",
    "trainer.evaluate_every_steps=120",
    "writer=[none]",
    "optimizer.lr=3.0e-3",
]


TRANSDUCER = [
    "model=conformer_rnnt_xs",
    "objective=transducer",
    "decoders=transducer",
    "model.encoder.norm=layer",
]

LAS = [
    "model=conformer_las_xs",
    "objective=attention",
    "decoders=attention",
    "model.encoder.norm=layer",
    "model.speller.dim=48",
    "model.speller.num_layers=1",
]


PARAFORMER = [
    "model=paraformer_xs",
    "objective=paraformer",
    "decoders=paraformer",
    "model.encoder.norm=layer",
    "model.decoder.dim=48",
    "model.decoder.num_layers=1",
]


@pytest.fixture(scope="session")
def run_folder(corpus, tmp_path_factory) -> Path:
    """A run that has learnt the tone corpus by heart."""
    save_dir = tmp_path_factory.mktemp("saved")
    door(
        "train.py",
        *TINY,
        "trainer.max_steps=240",
        f"datasets.train.data_dir={corpus}",
        f"save_dir={save_dir}",
        "run_name=tones",
    )
    return save_dir / "tones"
