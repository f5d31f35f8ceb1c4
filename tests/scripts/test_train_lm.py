from __future__ import annotations

import gzip
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from src.lm import NGramLM
from src.text_encoder import CharTextEncoder
from src.utils.errors import UserError

ROOT = Path(__file__).parents[2]
LINES = ["The cat sat.", "A cat ran!", "the dog sat", "a dog, a cat", "23 dogs"]


def train_lm(*arguments) -> subprocess.CompletedProcess:
    command = [sys.executable, "scripts/train_lm.py", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def spelled(text: str) -> str:
    """Letter by letter, as ``CharTextEncoder`` has them."""
    return " ".join(text.replace(" ", "▁"))


def test_words_and_tokens_from_files_of_text(tmp_path):
    file = tmp_path / "text.txt.gz"
    file.write_bytes(gzip.compress("\n".join(LINES).encode()))
    done = train_lm(file, "--order", 2, "--out", tmp_path / "lm" / "words.arpa.gz")
    assert done.returncode == 0, done.stderr
    texts = ["the cat sat", "a cat ran", "the dog sat", "a dog a cat", "twenty three dogs"]
    expected = NGramLM.estimate(texts, order=2)
    assert NGramLM.from_arpa(tmp_path / "lm" / "words.arpa.gz").score("the dog ran") == pytest.approx(
        expected.score("the dog ran"), abs=1e-5
    )
    CharTextEncoder().save(tmp_path)
    done = train_lm(file, "--order", 3, "--tokens", tmp_path, "--out", tmp_path / "tokens.safetensors")
    assert done.returncode == 0 and "n-grams of order 1 to 3" in done.stdout, done.stderr
    expected = NGramLM.estimate([spelled(text) for text in texts], order=3)
    for text in ("the cat sat", "the dog ran"):
        found = NGramLM.load(tmp_path / "tokens.safetensors").score(spelled(text))
        assert found == pytest.approx(expected.score(spelled(text)), abs=1e-6)


def test_what_cannot_be_used_is_named_and_the_rest_counts(tmp_path):
    (tmp_path / "bad.txt").write_bytes(b"\xff\xfe bad")
    (tmp_path / "good.txt").write_text("a b\nпривет\nb a")
    CharTextEncoder().save(tmp_path / "tokenizer")
    files = [tmp_path / "bad.txt", tmp_path / "good.txt"]
    done = train_lm(*files, "--tokens", tmp_path / "tokenizer", "--out", tmp_path / "lm.safetensors")
    assert done.returncode == 0 and "bad.txt: not UTF-8" in done.stderr and "no token for" in done.stderr
    done = train_lm(tmp_path / "bad.txt", "--out", tmp_path / "lm.safetensors")
    assert done.returncode == 2 and "no words to estimate" in done.stderr and "Traceback" not in done.stderr
    done = train_lm(tmp_path / "good.txt", "--order", 9, "--out", tmp_path / "lm.safetensors")
    assert done.returncode == 2 and "order=9" in done.stderr


def test_a_place_that_cannot_be_written_is_said_before_the_work(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for out in (tmp_path, tmp_path / "pipe"):
        done = train_lm(tmp_path / "no_such_text.txt", "--out", out)
        assert done.returncode == 2, done.stderr
        assert done.stderr.startswith(f"error: --out {out}: cannot be written"), done.stderr
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


def test_a_binary_whose_parts_do_not_fit_is_refused(tmp_path):
    file = tmp_path / "lm.safetensors"
    NGramLM.estimate(["a b", "b"], order=2).save(file)
    tensors = load_file(file)
    save_file(tensors, file)
    with pytest.raises(UserError, match="not a Lectern language model"):
        NGramLM.load(file)
    about = {"format": "lectern n-gram 1", "words": '["a"]', "starts": "[1, 2]"}
    for change in ({}, {"keys": torch.zeros(3)}, {"other": torch.zeros(1)}):
        save_file({**tensors, **change}, file, about)
        with pytest.raises(UserError, match="do not fit together"):
            NGramLM.load(file)
