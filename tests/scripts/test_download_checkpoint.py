"""Checkpoints arrive from a hub, an address or a path, checked, unpacked and complete."""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from support.fakes import fake_hub
from support.loopback import file_server, serve

from scripts.download_checkpoint import ROOT, download
from src.utils.errors import UserError

FILES = {"config.yaml": b"model: x\n", "model.safetensors": b"weights" * 1000, "README.md": b"# card\n"}


def tar_gz(prefix: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, body in FILES.items():
            info = tarfile.TarInfo(prefix + name)
            info.size = len(body)
            tar.addfile(info, io.BytesIO(body))
    return buffer.getvalue()


def content(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("prefix", ["", "conformer/"])
def test_an_archive_becomes_the_checkpoint_itself(tmp_path: Path, prefix: str) -> None:
    archive, out = tar_gz(prefix), tmp_path / "checkpoints/demo"
    with serve(file_server({"/m.tar.gz": archive})) as (address, _):
        made = download(f"{address}/m.tar.gz", out, hashlib.sha256(archive).hexdigest())
        assert content(out) == FILES and sorted(made) == sorted(out / name for name in FILES)
        with pytest.raises(UserError, match="SHA-256"):
            download(f"{address}/m.tar.gz", tmp_path / "other", "00")
    assert not any((tmp_path / "other").rglob("*.yaml"))


def test_a_language_model_and_a_local_folder(tmp_path: Path) -> None:
    with serve(file_server({"/3-gram.arpa": b"\\data\\"})) as (address, _):
        assert download(f"{address}/3-gram.arpa", tmp_path / "lm") == [tmp_path / "lm/3-gram.arpa"]
    local = tmp_path / "local"
    for name, body in FILES.items():
        (local / "sub" / name).parent.mkdir(parents=True, exist_ok=True)
        (local / "sub" / name).write_bytes(body)
    download(str(local), tmp_path / "copy")
    assert (
        content(tmp_path / "copy") == content(local) == {f"sub/{name}": body for name, body in FILES.items()}
    )


def test_the_command_with_a_hub_mirror(tmp_path: Path) -> None:
    command = [
        sys.executable,
        str(ROOT / "scripts/download_checkpoint.py"),
        "someone/conformer",
        "--out",
        "demo",
    ]
    home = {"HF_HOME": str(tmp_path / "hf"), "PATH": ""}
    with serve(fake_hub("someone/conformer", FILES)) as (address, _):
        done = subprocess.run(
            [*command, "--endpoint", address], cwd=tmp_path, env=home, capture_output=True, text=True
        )
    assert done.returncode == 0, done.stderr
    assert content(tmp_path / "demo") == FILES
    assert "made demo: 3 files" in done.stdout and "checkpoint=demo" in done.stdout


def test_the_source_as_the_target_and_a_target_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m/config.yaml").write_bytes(b"x")
    (tmp_path / "file").write_bytes(b"x")
    for out, problem in (
        ("m", "lies in"),
        ("file", "is a file"),
        ("file/x", "cannot be"),
        ("/proc/x", "cannot be"),
    ):
        with pytest.raises(UserError, match=problem):
            download(str(tmp_path / "m"), tmp_path / out)
    assert content(tmp_path) == {"m/config.yaml": b"x", "file": b"x"}
