"""LibriSpeech from mirrors on this machine: checksums, resuming, dead mirrors."""

from __future__ import annotations

import hashlib
import io
import socket
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from support.loopback import Reply, Request, file_server, serve

from scripts.download_librispeech import download
from src.datasets import LibriSpeechDataset
from src.utils.errors import UserError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch) -> None:
    monkeypatch.setenv("LECTERN_CACHE", str(tmp_path_factory.mktemp("cache")))


def archive(part: str) -> bytes:
    """A part with one recording, packed as OpenSLR packs it."""
    clip = io.BytesIO()
    sf.write(clip, np.random.default_rng(0).uniform(-0.5, 0.5, 16000), 16000, format="FLAC")
    files = {
        "LibriSpeech/README.TXT": b"about",
        f"LibriSpeech/{part}/84/1/84-1-0000.flac": clip.getvalue(),
        f"LibriSpeech/{part}/84/1/84-1.trans.txt": b"84-1-0000 GO ON\n",
    }
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return packed.getvalue()


def mirror(*parts: str) -> dict[str, bytes]:
    files = {f"/12/{part}.tar.gz": archive(part) for part in parts}
    sums = [f"{hashlib.md5(body).hexdigest()}  {path[4:]}\n" for path, body in files.items()]
    return {"/12/md5sum.txt": "".join(sums).encode(), **files}


def dead_address() -> str:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{unused.getsockname()[1]}/12"


def test_parts_are_made_once(tmp_path, capsys) -> None:
    with serve(file_server(mirror("dev-clean", "test-other"))) as (address, seen):
        folders = download(["dev-clean", "test-other"], tmp_path, [f"{address}/12/"])
        requests = len(seen)
        assert download(["dev-clean"], tmp_path, [f"{address}/12"]) == folders[:1]
        assert len(seen) == requests and "there already" in capsys.readouterr().out
    assert folders == [tmp_path / "LibriSpeech/dev-clean", tmp_path / "LibriSpeech/test-other"]
    assert (tmp_path / "LibriSpeech/README.TXT").is_file()
    assert not list((tmp_path / ".librispeech").glob("*.tar.gz"))
    dataset = LibriSpeechDataset(tmp_path, ["dev-clean"])
    assert dataset.texts == ["GO ON"] and dataset[0].audio.shape == (16000,)


def test_a_partial_download_goes_on(tmp_path) -> None:
    whole = file_server(mirror("dev-clean"))
    cut = 5000

    def answer(request: Request) -> Reply:
        reply = whole(request)
        reply.cut = cut if request.path.endswith(".gz") else None
        return reply

    with serve(answer) as (address, seen):
        with pytest.raises(UserError, match="no mirror could give it whole"):
            download(["dev-clean"], tmp_path, [f"{address}/12"], pause_s=0)
        cut = None
        seen.clear()
        download(["dev-clean"], tmp_path, [f"{address}/12"], pause_s=0)
        (last,) = [request for request in seen if request.path.endswith(".gz")]
    assert int(last.headers["Range"].removeprefix("bytes=").rstrip("-")) >= 5000
    assert len(LibriSpeechDataset(tmp_path, "dev-clean")) == 1


def test_a_dead_mirror_and_a_wrong_checksum_make_room_for_the_next(tmp_path, capsys) -> None:
    good = mirror("dev-clean")
    bad = good | {"/12/dev-clean.tar.gz": b"something else"}
    with serve(file_server(bad)) as (first, _), serve(file_server(good)) as (second, _):
        download(["dev-clean"], tmp_path, [dead_address(), f"{first}/12", f"{second}/12"], pause_s=0)
    said = capsys.readouterr().err
    assert "md5sum.txt: no complete download" in said and f"{first}/12/dev-clean.tar.gz: MD5 is" in said
    assert len(LibriSpeechDataset(tmp_path, "dev-clean")) == 1


def test_no_mirror_has_it(tmp_path, capsys) -> None:
    bad = mirror("dev-clean") | {"/12/dev-clean.tar.gz": b"something else"}
    with serve(file_server(bad)) as (address, _):
        with pytest.raises(UserError, match="dev-clean: no mirror could give it whole.*--mirror"):
            download(["dev-clean"], tmp_path, [f"{address}/12"])
        assert "MD5 is" in capsys.readouterr().err
        with pytest.raises(UserError, match="test-clean: no mirror"):
            download(["test-clean"], tmp_path, [f"{address}/12"])
        assert "states no MD5 of test-clean" in capsys.readouterr().err
    assert not (tmp_path / "LibriSpeech").exists() and not list(tmp_path.rglob("*.tar.gz"))


def test_an_archive_that_was_fetched_is_not_fetched_again(tmp_path) -> None:
    files = mirror("dev-clean")
    (tmp_path / ".librispeech").mkdir()
    (tmp_path / ".librispeech/dev-clean.tar.gz").write_bytes(files.pop("/12/dev-clean.tar.gz"))
    with serve(file_server(files)) as (address, _):
        download(["dev-clean"], tmp_path, [f"{address}/12"])
    assert len(LibriSpeechDataset(tmp_path, "dev-clean")) == 1


def test_the_command(tmp_path) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess:
        command = [sys.executable, str(ROOT / "scripts/download_librispeech.py"), *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)

    with serve(file_server(mirror("dev-clean"))) as (address, _):
        done = run("dev-clean", "--mirror", f"{address}/12", "--out", "here")
    assert done.returncode == 0, done.stderr
    assert "made here/LibriSpeech/dev-clean: 1 recordings" in done.stdout
    wrong = run("dev-dirty", "--out", "here")
    assert wrong.returncode == 2 and wrong.stderr.startswith("error: dev-dirty: no part of LibriSpeech")
