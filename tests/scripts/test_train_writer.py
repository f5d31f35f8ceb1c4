"""scripts/train_writer.py: a folder that a speech LLM takes for a language model of a hub."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytest.importorskip("transformers")

from src.model.writers import CausalLMWriter  # noqa: E402
from src.text_encoder import ChatTextEncoder  # noqa: E402
from tests.conftest import ROOT  # noqa: E402


def train_writer(*arguments) -> subprocess.CompletedProcess:
    command = [sys.executable, "scripts/train_writer.py", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_it_learns_and_is_a_writer(tmp_path):
    (tmp_path / "texts.txt").write_text("GO ON!\n\nStop it.\n3 dogs\n")
    small = ["--dim", 32, "--layers", 1, "--batch-size", 8]
    losses = []
    for steps in (1, 60):
        out = tmp_path / ("w" if steps == 60 else "short")
        done = train_writer(tmp_path / "texts.txt", "--out", out, *small, "--steps", steps)
        assert done.returncode == 0, done.stderr
        assert "3 texts" in done.stdout and "Traceback" not in done.stderr
        losses.append(float(done.stdout.split("; loss ")[1].split(",")[0]))
    assert losses[1] < losses[0] - 1
    encoder, writer = ChatTextEncoder(str(tmp_path / "w")), CausalLMWriter(str(tmp_path / "w"))
    assert writer.vocab_size == encoder.vocab_size and writer.dim == 32
    again = train_writer(tmp_path / "texts.txt", "--out", tmp_path / "again", *small, "--steps", 60)
    assert again.returncode == 0
    files = [tmp_path / folder / "model.safetensors" for folder in ("w", "again")]
    assert files[0].read_bytes() == files[1].read_bytes()
    done = train_writer(tmp_path / "texts.txt", "--out", tmp_path / "random", *small, "--steps", 0)
    assert "untrained" in done.stdout and (tmp_path / "random" / "model.safetensors").is_file()


def test_a_file_that_cannot_be_read_is_left_out(tmp_path):
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("go on\n")
    (tmp_path / "texts" / "b.txt").write_bytes(b"\xff\xfe\xff")
    done = train_writer(tmp_path / "texts", "--out", tmp_path / "w", "--dim", 32, "--steps", 0)
    assert done.returncode == 0 and "1 texts" in done.stdout
    assert "skipped: " in done.stderr and "b.txt: not UTF-8 text" in done.stderr


def test_mistakes_are_one_line(tmp_path):
    (tmp_path / "empty.txt").write_text("\n")
    (tmp_path / "texts.txt").write_text("go on\n")
    for arguments, line in (
        ([tmp_path / "empty.txt", "--out", tmp_path / "w"], "no text here"),
        ([tmp_path / "texts.txt", "--out", tmp_path], "holds files already; choose another, or remove them"),
        ([tmp_path / "texts.txt", "--out", tmp_path / "w", "--dim", 40], "--dim 40: give a multiple of 32"),
        ([tmp_path / "texts.txt", "--out", "/dev/null/w"], "choose another --out"),
        ([tmp_path / "texts.txt", "--out", tmp_path / "w", "--errors", 2], "--errors=2.0 must be"),
    ):
        done = train_writer(*arguments)
        assert done.returncode == 2 and line in done.stderr.splitlines()[-1], done.stderr
