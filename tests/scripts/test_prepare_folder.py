"""Any link becomes a folder for inference.py; an empty one stands for the clips in the clone."""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from support.loopback import file_server, serve

from scripts.prepare_folder import ROOT, prepare
from src.utils.errors import UserError

DATA = {"my data/audio/s1/a.wav": b"RIFF", "my data/transcriptions/s1/a.txt": b"hello"}


def packed(kind: str) -> bytes:
    buffer = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(buffer, "w") as file:
            for name, body in DATA.items():
                file.writestr(name, body)
    else:
        with tarfile.open(fileobj=buffer, mode="w:gz") as file:
            for name, body in DATA.items():
                info = tarfile.TarInfo(name)
                info.size = len(body)
                file.addfile(info, io.BytesIO(body))
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_an_address_of_an_archive(tmp_path: Path, kind: str) -> None:
    with serve(file_server({"/shared": packed(kind)})) as (address, _):
        out = prepare(f"{address}/shared?download=1", tmp_path / "link")
    assert (out / "audio/s1/a.wav").read_bytes() == b"RIFF"
    assert (out / "transcriptions/s1/a.txt").read_text() == "hello"


def test_another_link_takes_the_place_of_the_first(tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.wav").write_bytes(b"x")
        out = prepare(str(tmp_path / name), tmp_path / "link")
        assert [p.name for p in (out / "audio").iterdir()] == [f"{name}.wav"]


def test_a_text_file_is_no_speech(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("hello")
    with pytest.raises(UserError, match="no audio files"):
        prepare(str(tmp_path / "a.txt"), tmp_path / "link")


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, str(ROOT / "scripts/prepare_folder.py"), *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True)


def test_the_command_from_any_folder(tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips/a.wav").write_bytes(b"x")
    done = run("clips", "--out", "link", cwd=tmp_path)
    assert done.returncode == 0 and "1 recordings" in done.stdout and "not scored" in done.stdout
    wrong = run("./none.zip", "--out", "link", cwd=tmp_path)
    assert (
        wrong.returncode == 2
        and wrong.stderr.startswith("error: ./none.zip: no such file")
        and not wrong.stdout
    )


@pytest.mark.parametrize("arguments", [("~nosuchuser/x", "o"), ("a.wav", "a.wav"), ("a.wav", "/proc/x")])
def test_paths_that_cannot_be_are_one_line(tmp_path: Path, arguments: tuple[str, str]) -> None:
    (tmp_path / "a.wav").write_bytes(b"x")
    done = run(arguments[0], "--out", arguments[1], cwd=tmp_path)
    assert done.returncode == 2 and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert (tmp_path / "a.wav").read_bytes() == b"x"


def test_the_recordings_of_a_folder_that_becomes_the_output_stay(tmp_path: Path) -> None:
    folder = tmp_path / "m" / "recording"
    folder.mkdir(parents=True)
    for name in "abc":
        (folder / f"{name}.flac").write_bytes(b"x")
    out = prepare(str(folder / "a.flac"), tmp_path / "m")
    assert [p.name for p in (out / "audio").iterdir()] == ["a.flac"]
    assert all((folder / f"{name}.flac").read_bytes() == b"x" for name in "abc")
