"""Several processes (gloo, on the CPU) train what one process trains."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

ROOT = Path(__file__).resolve().parents[2]
STEPS = 4
SETTINGS = [
    "-cn=one_batch",
    f"datasets.train.data_dir={ROOT / 'samples'}",
    "model=mlp_ctc",
    "model.encoder.dim=32",
    "model.encoder.num_layers=1",
    "model.encoder.dropout=0.1",
    "~decoders.beam",
    "writer=none",
    "trainer.device=cpu",
    "batching.batch_size=1",
    "optimizer.lr=0.01",
    "trainer.ema_decay=0.5",
    f"trainer.max_steps={STEPS}",
    "trainer.evaluate_every_epochs=2",
]


def train(
    save_dir: Path, processes: int, *settings: str, script="train.py", restarts: int = 0
) -> subprocess.CompletedProcess:
    """Trains a small CTC model."""
    settings = (*SETTINGS, f"save_dir={save_dir}", "run_name=run", *settings)
    return torchrun(processes, *settings, script=script, restarts=restarts)


def torchrun(
    processes: int, *settings: str, script="train.py", restarts: int = 0
) -> subprocess.CompletedProcess:
    """Runs the door under torchrun, also where there is one process only."""
    launcher = [
        "torch.distributed.run",
        "--standalone",
        f"--nproc_per_node={processes}",
        f"--max-restarts={restarts}",
    ]
    command = [sys.executable, "-m", *launcher, script, *settings]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)


def weights(save_dir: Path, step: int = STEPS) -> dict[str, torch.Tensor]:
    return load_file(save_dir / "run" / "checkpoints" / f"step-{step}" / "training" / "state.safetensors")


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> dict[str, torch.Tensor]:
    """All tensors at the end of the run in one process: six micro-batches a step, five in an epoch."""
    save_dir = tmp_path_factory.mktemp("alone")
    done = train(save_dir, 1, "trainer.accumulate=6")
    assert done.returncode == 0, done.stderr
    return weights(save_dir)


@pytest.mark.parametrize(("processes", "accumulate"), [(2, 3), (3, 2)])
def test_the_same_global_batch_gives_the_same_weights(tmp_path, alone, processes, accumulate):
    done = train(tmp_path, processes, f"trainer.accumulate={accumulate}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("checkpoint: ") == 1 and done.stdout.count("dev loss") == 2  # one of them speaks
    torch.testing.assert_close(weights(tmp_path), alone, atol=3e-6, rtol=1e-5)


def test_a_run_goes_on_with_another_number_of_processes(tmp_path, alone):
    for processes, accumulate in ((2, 3), (1, 6)):
        settings = [
            f"trainer.accumulate={accumulate}",
            "trainer.time_limit=0.001s",
            "trainer.resume_from=auto",
        ]
        done = train(tmp_path, processes, *settings)
        assert done.returncode and "(trainer.time_limit); go on with: " in done.stdout, done.stderr
    done = train(tmp_path, 2, "trainer.resume_from=auto")
    assert "was trained with trainer.accumulate times processes=6, not 2" in done.stderr
    done = train(tmp_path, 3, "trainer.accumulate=2", "trainer.resume_from=auto")
    assert done.returncode == 0 and "going on from step 2" in done.stdout, done.stderr
    torch.testing.assert_close(weights(tmp_path), alone, atol=3e-6, rtol=1e-5)


def test_a_process_that_dies_ends_the_job_and_a_restart_finishes_it(tmp_path, alone, monkeypatch):
    settings = ["trainer.accumulate=3", "trainer.resume_from=auto", "trainer.evaluate_every_steps=1"]
    monkeypatch.setenv("STRIKE", "process")
    script = "tests/support/struck_rank.py"
    done = train(tmp_path / "ends", 2, *settings, script=script)
    assert done.returncode and "another process of this training ended" in done.stderr
    assert sorted(weights(tmp_path / "ends", step=2)) == sorted(alone)
    done = train(tmp_path / "goes_on", 2, *settings, script=script, restarts=1)
    assert done.returncode == 0 and "going on from step 2" in done.stdout, done.stderr
    torch.testing.assert_close(weights(tmp_path / "goes_on"), alone, atol=3e-6, rtol=1e-5)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_launcher_that_is_asked_to_end_saves_first(tmp_path, monkeypatch, workers):
    monkeypatch.setenv("STRIKE", "launcher")
    settings = ["trainer.accumulate=3", "trainer.resume_from=auto", f"num_workers={workers}"]
    done = train(tmp_path, 2, *settings, "trainer.max_steps=100000", script="tests/support/struck_rank.py")
    assert done.returncode and "(SIGTERM); go on with: " in done.stdout, done.stderr
    newest = max(int(path.name[5:]) for path in (tmp_path / "run" / "checkpoints").glob("step-*"))
    done = train(tmp_path, 2, *settings, f"trainer.max_steps={newest + 1}")
    assert done.returncode == 0 and f"going on from step {newest}" in done.stdout, done.stderr


def test_processes_part_before_their_interpreters_end(tmp_path):
    """A thread that lost its last message while the interpreter ended aborted a finished training (once in CI)."""
    script = tmp_path / "parts.py"
    script.write_text(
        "import atexit, os, torch, torch.distributed as dist\n"
        # Runs last; a line in one piece, because two processes write.
        "atexit.register(lambda: os.write(1, f'initialised: {dist.is_initialized()}\\n'.encode()))\n"
        "from src.utils.processes import Processes\n"
        "processes = Processes.join(torch.device('cpu'))\n"
        "assert processes.gather(processes.rank) == [0, 1]\n"
    )
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([*launcher, script], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and done.stdout.count("initialised: False") == 2, done.stderr


def test_a_process_without_memory_halves_its_batches_and_nothing_is_lost(tmp_path, monkeypatch):
    settings = ["batching.batch_size=2", "trainer.accumulate=1", "model.encoder.dropout=0"]
    plain = train(tmp_path / "plain", 2, *settings)
    assert plain.returncode == 0, plain.stderr
    monkeypatch.setenv("TROUBLE", "memory")
    done = train(tmp_path / "scarce", 2, *settings, script="tests/support/troubled_rank.py")
    assert done.returncode == 0, done.stderr
    torch.testing.assert_close(
        weights(tmp_path / "scarce"), weights(tmp_path / "plain"), atol=3e-6, rtol=1e-5
    )


def test_a_loss_that_is_nan_in_one_process_drops_the_step_in_all(tmp_path, monkeypatch):
    monkeypatch.setenv("TROUBLE", "nan")
    script = "tests/support/troubled_rank.py"
    done = train(tmp_path, 2, "trainer.accumulate=3", "trainer.clip_norm=null", script=script)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("left out, the loss of these clips was NaN or infinite") == 1
    assert all(value.isfinite().all() for value in weights(tmp_path).values())


def test_a_speech_llm_of_which_only_the_projector_is_trained(tmp_path):
    """Most weights take no part in DDP, and a mixture's auxiliary loss is of each micro-batch."""
    pytest.importorskip("transformers")
    settings = [
        *("-cn=speech_llm", "+test=tiny_llm", f"datasets.train.data_dir={ROOT / 'samples'}"),
        *("datasets=samples", "model/projector=moe", "model.projector.hidden_dim=16", "writer=none"),
        *("~decoders.beam", "~decoders.sample", "batching.batch_size=1", f"trainer.max_steps={STEPS}"),
        *(f"trainer.evaluate_every_steps={STEPS}", "run_name=run"),
    ]
    for processes, accumulate in ((1, 2), (2, 1)):
        share = [f"trainer.accumulate={accumulate}", f"save_dir={tmp_path / str(processes)}"]
        done = torchrun(processes, *settings, *share)
        assert done.returncode == 0 and done.stdout.count("checkpoint: ") == 1, done.stderr
    together, alone = (weights(tmp_path / str(processes)) for processes in (2, 1))
    torch.testing.assert_close(together, alone, atol=3e-6, rtol=1e-5)
    shared = load_file(tmp_path / "2" / "run" / "checkpoints" / f"step-{STEPS}" / "model.safetensors")
    assert (shared["projector.norm.weight"] != 1).all()  # it was trained
