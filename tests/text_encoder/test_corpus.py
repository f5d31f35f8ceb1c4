from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from src.text_encoder.corpus import read_lines, text_files
from src.utils.errors import TextError, UserError


def read(path: Path) -> list[str]:
    return [line.strip() for file in text_files(path) for line in read_lines(file)]


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    data = text.encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_each_kind_of_file(tmp_path: Path, suffix: str) -> None:
    assert read(write(tmp_path / f"a.txt{suffix}", "\ufeffone\r\ntwo")) == ["one", "two"]
    assert read(write(tmp_path / f"1-2.trans.txt{suffix}", "1-2-0 ONE TWO\n1-2-1 THREE\n")) == [
        "ONE TWO",
        "THREE",
    ]
    rows = [{"audio": "a.wav", "text": "one"}, {"sentence": "two"}]
    assert read(write(tmp_path / f"m.jsonl{suffix}", "\n".join(map(json.dumps, rows)) + "\n\n")) == [
        "one",
        "two",
    ]
    assert read(write(tmp_path / f"m.tsv{suffix}", 'a.wav\tsay "one\nb.wav\ttwo\n')) == ['say "one', "two"]
    titled = "client_id\tpath\tsentence\tage\nx\ta.mp3\tone\t\n"
    assert read(write(tmp_path / f"cv.tsv{suffix}", titled)) == ["one"]


def test_folders_give_transcripts_and_nothing_else(tmp_path: Path) -> None:
    write(tmp_path / "set" / "README.txt", "not a transcript")
    write(tmp_path / "set" / "MANIFEST.tsv", "a\tnot again")
    write(tmp_path / "set" / "transcriptions" / "sub" / "b.txt", "two")
    write(tmp_path / "set" / "transcriptions" / "a.txt", "one")
    write(tmp_path / "set" / "transcriptions" / "._a.txt", "\x00")
    for folder in (tmp_path, tmp_path / "set", tmp_path / "set" / "transcriptions"):
        assert sorted(read(folder)) == ["one", "two"]
    write(tmp_path / "libri" / "1" / "2" / "1-2.trans.txt", "1-2-0 HELLO\n")
    write(tmp_path / "libri" / "SPEAKERS.txt", "not a transcript")
    assert read(tmp_path / "libri") == ["HELLO"]


def test_nothing_to_read(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.txt"):
        with pytest.raises(UserError, match="no text here"):
            text_files(path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", "naïve".encode("latin-1"), "not UTF-8"),
        ("a.txt.gz", b"plain", "cannot be read"),
        ("a.txt.gz", gzip.compress(b"hello " * 1000, mtime=0)[:-20], "cannot be read"),
        ("a.jsonl", b"{", "manifest"),
        ("a.jsonl", b"[1]\n", "manifest"),
        ("a.tsv", b"only one column\n", "manifest"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(TextError, match=message) as raised:
        list(read_lines(tmp_path / name))
    assert name in str(raised.value)


def test_links_to_folders_are_followed(tmp_path):
    """As prepare_folder.py makes them."""
    texts = tmp_path / "elsewhere"
    texts.mkdir()
    (texts / "a.txt").write_text("a")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "transcriptions").symlink_to(texts)
    assert [file.name for file in text_files(tmp_path / "mine")] == ["a.txt"]
