"""Downloads over real sockets: resuming, checksums, bounded retries, the hub, Google Drive."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from support.fakes import drive_id, fake_drive, fake_hub, google_certificate
from support.loopback import Reply, Request, file_server, serve

from src.fetching.downloads import ATTEMPTS, fetch
from src.utils.errors import UserError

BODY = bytes(range(256)) * 4000
FOLDER = "folder-0123456789-0123456789abcdef"


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_a_whole_file(tmp_path: Path) -> None:
    with serve(file_server({"/data/my%20clips.zip": BODY})) as (address, _):
        path = fetch(f"{address}/data/my clips.zip?x=1", tmp_path, hashlib.sha256(BODY).hexdigest().upper())
    assert path == tmp_path / "my clips.zip" and path.read_bytes() == BODY
    assert names(tmp_path) == ["my clips.zip"]


def test_a_broken_connection_goes_on_where_it_stopped(tmp_path: Path) -> None:
    whole = file_server({"/a.zip": BODY})
    cuts = iter([300_000, 100_000, None])

    def answer(request: Request) -> Reply:
        reply = whole(request)
        reply.cut = next(cuts)
        return reply

    with serve(answer) as (address, seen):
        assert fetch(f"{address}/a.zip", tmp_path, pause_s=0).read_bytes() == BODY
    assert [r.headers.get("Range") for r in seen] == [None, "bytes=300000-", "bytes=400000-"]


@pytest.mark.parametrize("later", [BODY, BODY[::-1]], ids=["same", "changed"])
def test_a_later_call_goes_on_but_never_mixes_two_versions(tmp_path: Path, later: bytes) -> None:
    current, cut = BODY, 1000

    def answer(request: Request) -> Reply:
        reply = file_server({"/a.zip": current})(request)
        reply.cut = cut
        return reply

    with serve(answer) as (address, seen):
        with pytest.raises(
            UserError, match=f"no complete download in {ATTEMPTS} attempts .* run again to go on"
        ):
            fetch(f"{address}/a.zip", tmp_path, pause_s=0)
        current, cut = later, None
        assert fetch(f"{address}/a.zip", tmp_path, pause_s=0).read_bytes() == later
    assert seen[-1].headers.get("Range") == f"bytes={1000 * ATTEMPTS}-"


def test_without_a_validator_it_begins_anew(tmp_path: Path) -> None:
    cuts = iter([1000, None])
    with serve(lambda _: Reply(200, BODY, cut=next(cuts))) as (address, seen):
        assert fetch(f"{address}/a.zip", tmp_path, pause_s=0).read_bytes() == BODY
    assert [r.headers.get("Range") for r in seen] == [None, None]


@pytest.mark.parametrize(
    ("status", "tries"), [(503, ATTEMPTS), (429, ATTEMPTS), (404, 1), (403, 1), (416, ATTEMPTS)]
)
def test_retries_are_bounded(tmp_path: Path, status: int, tries: int) -> None:
    with serve(lambda _: Reply(status)) as (address, seen):
        with pytest.raises(UserError) as error:
            fetch(f"{address}/a.zip", tmp_path, pause_s=0)
    assert (
        len(seen) == tries
        and "\n" not in str(error.value)
        and str(error.value).startswith(f"{address}/a.zip: ")
    )


def test_nobody_listens(tmp_path: Path) -> None:
    with serve(lambda _: Reply()) as (address, _):
        pass
    with pytest.raises(UserError, match="no complete download"):
        fetch(f"{address}/a.zip", tmp_path, pause_s=0)


def test_a_web_page_is_no_file(tmp_path: Path) -> None:
    page = Reply(200, b"<html>Sign in</html>", {"Content-Type": "text/html; charset=utf-8"})
    with serve(lambda _: page) as (address, _), pytest.raises(UserError, match="web page"):
        fetch(f"{address}/a.zip", tmp_path)
    assert names(tmp_path) == []


@pytest.mark.parametrize("sent", ["../../evil.zip", "/etc/evil.zip", "..\\evil.zip", ".evil.zip"])
def test_the_server_cannot_choose_the_folder(tmp_path: Path, sent: str) -> None:
    reply = Reply(200, b"x", {"Content-Disposition": f'attachment; filename="{sent}"'})
    with serve(lambda _: reply) as (address, _):
        assert fetch(f"{address}/a", tmp_path / "in") == tmp_path / "in/evil.zip"


def test_a_wrong_checksum_is_named_and_the_file_thrown_away(tmp_path: Path) -> None:
    with (
        serve(file_server({"/a.zip": BODY})) as (address, _),
        pytest.raises(UserError, match="expected 00ff"),
    ):
        fetch(f"{address}/a.zip", tmp_path, "00ff")
    assert names(tmp_path) == []
    mine = tmp_path / "mine.zip"
    mine.write_bytes(BODY)
    with pytest.raises(UserError, match="expected 00ff"):
        fetch(str(mine), tmp_path, "00ff")
    assert mine.exists()
    with pytest.raises(UserError, match="for one file"):
        fetch(str(tmp_path), tmp_path, "00ff")


def test_paths_are_returned_as_they_are(tmp_path: Path) -> None:
    file = tmp_path / "my clips.zip"
    file.write_bytes(b"x")
    assert fetch(str(file), tmp_path / "in") == file
    assert fetch(file.as_uri(), tmp_path / "in") == file
    assert fetch(f" {tmp_path} ", tmp_path / "in") == tmp_path
    assert not (tmp_path / "in").exists()


@pytest.mark.parametrize(
    "link", ["", "nothing-here", "/nothing/here.zip", "file:///nothing/here", "ftp://a/b", "http://[x"]
)
def test_links_that_lead_nowhere(tmp_path: Path, link: str) -> None:
    with pytest.raises(UserError):
        fetch(link, tmp_path)


@pytest.fixture
def hub_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    for name in ("HF_HUB_CACHE", "HF_XET_CACHE"):
        monkeypatch.setattr(constants, name, str(tmp_path / "hub-cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))


def test_a_hub_repository_and_one_file_of_it(tmp_path: Path, hub_home: None) -> None:
    content = {"config.yaml": b"model: x\n", "model.safetensors": BODY, "lm/3-gram.arpa": b"\\data\\\n"}
    with serve(fake_hub("someone/conformer", content)) as (address, _):
        folder = fetch("someone/conformer", tmp_path, endpoint=address)
        assert {name: (folder / name).read_bytes() for name in content} == content
        checksum = hashlib.sha256(content["lm/3-gram.arpa"]).hexdigest()
        file = fetch(
            "hf://someone/conformer@main/lm/3-gram.arpa", tmp_path / "lm", checksum, endpoint=address
        )
        assert file.read_bytes() == content["lm/3-gram.arpa"]
        with pytest.raises(UserError, match="nobody/none: neither a path here nor handed out by the hub"):
            fetch("nobody/none", tmp_path, endpoint=address)


@pytest.fixture
def drive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Sends gdown's requests to a loopback server; yields a function that adds files to it."""
    made = google_certificate(tmp_path)
    if made is None:
        pytest.skip("needs the openssl program")
    certificate, context = made
    content: dict[str, bytes] = {}
    with serve(lambda request: fake_drive(FOLDER, content)(request), tls=context) as (address, _):
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        for name in ("HTTPS_PROXY", "https_proxy"):
            monkeypatch.setenv(name, address)
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
        yield content.update


def test_a_drive_file_by_each_form_of_its_link(tmp_path: Path, drive) -> None:
    drive({"clips.zip": BODY})
    key = drive_id("clips.zip")
    for number, link in enumerate(
        (
            f"https://drive.google.com/file/d/{key}/view?usp=sharing",
            f"https://drive.google.com/open?id={key}&usp=drive_copy",
            f"https://drive.google.com/uc?export=download&id={key}",
        )
    ):
        path = fetch(link, tmp_path / str(number))
        assert path == tmp_path / str(number) / "clips.zip" and path.read_bytes() == BODY


def test_a_drive_folder_of_more_than_50_files(tmp_path: Path, drive) -> None:
    content = {f"clip{i:02}.wav": bytes([i]) * 100 for i in range(53)}
    drive(content)
    folder = fetch(f"https://drive.google.com/drive/u/0/folders/{FOLDER}?usp=sharing", tmp_path)
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == content


def test_drive_links_without_access(tmp_path: Path, drive) -> None:
    for link in (f"file/d/{drive_id('other')}/view", f"drive/folders/{'x' * 30}", "drive/my-drive"):
        with pytest.raises(UserError) as error:
            fetch(f"https://drive.google.com/{link}", tmp_path)
        assert "hare" in str(error.value) and "\n" not in str(error.value)
