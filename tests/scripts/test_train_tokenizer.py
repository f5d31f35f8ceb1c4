from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from src.text_encoder import load_text_encoder

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "train_tokenizer.py"


def train(cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(SCRIPT), *arguments], cwd=cwd, capture_output=True, text=True)


def test_the_same_text_gives_the_same_file_quietly(tmp_path: Path) -> None:
    folder = tmp_path / "set" / "transcriptions"
    folder.mkdir(parents=True)
    (folder / "a.txt").write_text("The cat's hat & 12 mats!", encoding="utf-8")
    (folder / "b.txt").write_text("THE CAT SAT ON THE MAT", encoding="utf-8")
    (folder / "bad.txt").write_bytes(b"\xff\xfe\xe9")
    for out in ("one", "two"):
        done = train(tmp_path, "set", "--out", out, "--vocab-size", "34")
        assert done.returncode == 0, done.stderr
        assert "34 tokens" in done.stdout and "bad.txt: not UTF-8" in done.stderr
        assert "trainer_interface" not in done.stderr
        assert [path.name for path in (tmp_path / out).iterdir()] == ["tokenizer.model"]
    assert (tmp_path / "one/tokenizer.model").read_bytes() == (tmp_path / "two/tokenizer.model").read_bytes()
    assert load_text_encoder(tmp_path / "one").vocab_size == 34


def test_a_vocabulary_too_large_for_the_text_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a b c", encoding="utf-8")
    done = train(tmp_path, "a.txt", "--out", "out", "--vocab-size", "4000")
    assert done.returncode == 2
    assert (
        "error: vocabulary of 4000: too large for this text; give --vocab-size"
        in done.stderr.splitlines()[-1]
    )
    assert not (tmp_path / "out").exists()


def test_no_readable_text_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xff")
    done = train(tmp_path, "a.txt", "--out", "out")
    assert done.returncode == 2 and "none of 1 files can be read" in done.stderr.splitlines()[-1]


def test_a_place_that_cannot_be_written_is_said_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    done = train(tmp_path, "no_such_text.txt", "--out", "file")
    assert done.returncode == 2
    assert done.stderr.startswith("error: --out file/tokenizer.model: cannot be written"), done.stderr
