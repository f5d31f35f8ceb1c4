"""Archives of every kind come out whole; hostile ones are refused in one line and leave nothing behind."""

from __future__ import annotations

import gzip
import io
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.fetching.archives import _safe_parts, archive_kind, unpack
from src.utils.errors import UserError

CONTENT = {"data/audio/a.wav": b"RIFF" * 100, "data/transcriptions/a.txt": "héllo".encode()}


def make_tar(path: Path, members: list[tarfile.TarInfo | tuple[str, bytes]], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as tar:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                tar.addfile(info, io.BytesIO(member[1]))
    return path


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def make_zip(path: Path, members: dict[str, bytes], mode: int = 0) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            info = zipfile.ZipInfo(name)
            info.external_attr, info.compress_type = mode << 16, zipfile.ZIP_DEFLATED
            file.writestr(info, content)
    return path


def files(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("mode", ["zip", "w", "w:gz", "w:bz2", "w:xz"])
def test_unpacks_every_kind_whatever_its_name(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "download"
    make_zip(path, CONTENT) if mode == "zip" else make_tar(path, list(CONTENT.items()), mode)
    assert archive_kind(path) == ("zip" if mode == "zip" else "tar")
    assert files(unpack(path, tmp_path / "out")) == CONTENT


def test_into_a_folder_that_holds_other_files(tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / "data").mkdir(parents=True)
    (out / "data/mine.txt").write_text("kept")
    unpack(make_zip(tmp_path / "a.zip", CONTENT), out)
    assert files(out) == CONTENT | {"data/mine.txt": b"kept"}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.zip", "out"]


def test_leaves_out_what_macos_adds(tmp_path: Path) -> None:
    extra = {"__MACOSX/data/audio/._a.wav": b"x", "data/audio/._a.wav": b"x", "data/.DS_Store": b"x"}
    assert files(unpack(make_zip(tmp_path / "a.zip", CONTENT | extra), tmp_path / "out")) == CONTENT


def test_backslashes_of_windows_zips_are_folders(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "a.zip", {"audio\\a.wav": b"x"})
    assert files(unpack(archive, tmp_path / "out")) == {"audio/a.wav": b"x"}


def test_links_inside_a_tar_become_copies(tmp_path: Path) -> None:
    links = [
        special("data/b.wav", tarfile.SYMTYPE, "audio/a.wav"),
        special("c", tarfile.LNKTYPE, "data/audio/a.wav"),
    ]
    out = unpack(make_tar(tmp_path / "a.tar", [*CONTENT.items(), *links]), tmp_path / "out")
    wav = CONTENT["data/audio/a.wav"]
    assert files(out) == CONTENT | {"data/b.wav": wav, "c": wav}
    assert not any(p.is_symlink() for p in out.rglob("*"))


HOSTILE_NAMES = ["../evil", "/etc/evil", "a/../../evil", "..\\evil", "\\evil"]


@pytest.mark.parametrize("name", HOSTILE_NAMES)
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_names_that_point_outside_are_refused(tmp_path: Path, kind: str, name: str) -> None:
    members = [("good.txt", b"good"), (name, b"evil")]
    path = tmp_path / "a"
    make_zip(path, dict(members)) if kind == "zip" else make_tar(path, members)
    refused(path, tmp_path, "points outside")


@pytest.mark.parametrize(
    ("member", "reason"),
    [
        (special("l", tarfile.SYMTYPE, "/etc/passwd"), "links to '/etc/passwd'"),
        (special("l", tarfile.SYMTYPE, "../../secret"), "links to"),
        (special("l", tarfile.LNKTYPE, "../secret"), "links to"),
        (special("l", tarfile.SYMTYPE, "l"), "damaged"),
        (special("l", tarfile.CHRTYPE), "device"),
        (special("l", tarfile.BLKTYPE), "device"),
        (special("l", tarfile.FIFOTYPE), "device"),
    ],
)
def test_tar_links_outside_and_devices_are_refused(
    tmp_path: Path, member: tarfile.TarInfo, reason: str
) -> None:
    (tmp_path / "secret").write_text("secret")
    refused(make_tar(tmp_path / "a.tar", [("good.txt", b"good"), member]), tmp_path, reason)


def test_a_folder_link_cannot_lead_a_later_member_outside(tmp_path: Path) -> None:
    members = [special("door", tarfile.SYMTYPE, str(tmp_path)), ("door/evil", b"evil")]
    refused(make_tar(tmp_path / "a.tar", members), tmp_path, "links to")
    assert not (tmp_path / "evil").exists()


def test_zip_links_and_passwords_are_refused(tmp_path: Path) -> None:
    refused(
        make_zip(tmp_path / "a.zip", {"l": b"/etc/passwd"}, stat.S_IFLNK | 0o777), tmp_path, "link or device"
    )
    locked = bytearray(make_zip(tmp_path / "b.zip", {"a": b"a"}).read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        locked[locked.index(signature) + offset] |= 1
    (tmp_path / "b.zip").write_bytes(locked)
    refused(tmp_path / "b.zip", tmp_path, "password")


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_bombs_are_refused_by_bytes_and_by_members(tmp_path: Path, kind: str) -> None:
    members = {f"zeros{i}": bytes(200_000) for i in range(5)}
    path = tmp_path / "a"
    make_zip(path, members) if kind == "zip" else make_tar(path, list(members.items()), "w:gz")
    refused(path, tmp_path, "archive bomb", max_bytes=900_000)
    refused(path, tmp_path, "more than 4 members", max_members=4)
    assert len(files(unpack(path, tmp_path / "out", max_bytes=1_000_000))) == 5


def test_copies_of_links_count_towards_the_limit(tmp_path: Path) -> None:
    links = [special(f"l{i}", tarfile.LNKTYPE, "big") for i in range(9)]
    path = make_tar(tmp_path / "a.tar", [("big", bytes(100_000)), *links])
    refused(path, tmp_path, "archive bomb", max_bytes=500_000)


def test_a_zip_that_understates_a_size_is_damaged(tmp_path: Path) -> None:
    raw = bytearray(make_zip(tmp_path / "a.zip", {"a": bytes(5000)}).read_bytes())
    for signature, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        place = raw.index(signature) + offset
        raw[place : place + 4] = (10).to_bytes(4, "little")
    (tmp_path / "a.zip").write_bytes(raw)
    refused(tmp_path / "a.zip", tmp_path, "damaged")


@pytest.mark.parametrize("mode", ["zip", "w", "w:gz", "w:xz"])
def test_truncated_archives_are_damaged(tmp_path: Path, mode: str) -> None:
    noise = bytes((i * i * 7919 >> 3) % 251 for i in range(30_000))
    path = tmp_path / "a"
    make_zip(path, {"n": noise}) if mode == "zip" else make_tar(path, [("n", noise)], mode)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    refused(path, tmp_path, "damaged")


@pytest.mark.parametrize(("offset", "value"), [(6, b"\xff\x00"), (28, b"\x00\x00")])
def test_a_zip_with_a_broken_header_is_damaged(tmp_path: Path, offset: int, value: bytes) -> None:
    raw = bytearray(make_zip(tmp_path / "a.zip", {"a": b"a"}).read_bytes())
    place = raw.index(b"PK\x01\x02") + offset  # the version that it needs, the length of a name
    raw[place : place + 2] = value
    (tmp_path / "a.zip").write_bytes(raw)
    refused(tmp_path / "a.zip", tmp_path, "damaged")


def test_a_link_in_the_target_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out/data").symlink_to(tmp_path / "outside")
    with pytest.raises(UserError, match="is a link to elsewhere"):
        unpack(make_zip(tmp_path / "a.zip", CONTENT), tmp_path / "out")
    assert files(tmp_path / "outside") == {}


@pytest.mark.parametrize("content", [b"", b"hello", b"\x1f\x8b broken gzip", b"Rar!\x1a\x07\x00"])
def test_what_is_no_archive_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.zip").write_bytes(content)
    refused(tmp_path / "a.zip", tmp_path, "neither zip nor tar")


@given(st.text(alphabet="ab./\\:\0 ~é", max_size=12))
def test_accepted_names_stay_inside(name: str) -> None:
    try:
        parts = _safe_parts(Path("a.zip"), name)
    except UserError:
        return
    inside = Path("/home/user/inside")
    assert (inside / Path(*parts)).is_relative_to(inside) and ".." not in parts


def refused(archive: Path, tmp_path: Path, reason: str, **limits: float) -> None:
    before = files(tmp_path)
    with pytest.raises(UserError, match=reason) as error:
        unpack(archive, tmp_path / "out", **limits)
    assert str(archive) in str(error.value) and "\n" not in str(error.value)
    assert files(tmp_path) == before and not (tmp_path / "out").exists()


def test_a_header_that_claims_to_be_long_is_not_read(tmp_path: Path) -> None:
    """tarfile reads an extended header at once: 600 MiB of it came from 3 MB of gzip."""
    header = tarfile.TarInfo("long")
    header.type, header.size = tarfile.XHDTYPE, 1 << 25
    path = tmp_path / "a.tar.gz"
    with gzip.open(path, "wb") as file:
        file.write(header.tobuf())
        file.write(bytes(1 << 25))
    refused(path, tmp_path, "damaged archive .a header of 33554432 bytes")
