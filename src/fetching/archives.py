"""Unpacks archives that strangers made: files only, inside one folder, within a size limit, all or nothing.

The kind is read from the content, not from the name. Nothing but plain files and folders is ever created: a
link inside a tar becomes a copy of the member that it names, and one that names anything else is refused.
Everything is unpacked beside the target and moved there at the end, so a refused archive leaves nothing
behind.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import shutil
import stat
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from src.utils.errors import UserError
from src.utils.progress import progress_bar

MAX_RATIO = 100  # unpacked bytes per packed byte; speech as WAV stays below 5
FREE_BYTES = 1 << 30  # what even a tiny archive may hold
MAX_MEMBERS = 2_000_000
CHUNK = 1 << 20
MAX_HEADER = 1 << 24  # bytes read at once; long names take a few hundred

Member = tuple[str, int, "IO[bytes] | None"]  # name, declared bytes, content (None for a folder)

_COMPRESSED = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\x00": lzma.open}
_DAMAGED = (
    *(tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, lzma.LZMAError, RecursionError),
    *(NotImplementedError, LookupError, ValueError, struct.error),  # what zipfile raises for broken headers
)


def archive_kind(path: Path) -> str | None:
    """``"zip"``, ``"tar"`` (plain or gzip, bzip2, xz) or None, by the first bytes."""
    with path.open("rb") as file:
        head = file.read(512)
    if head[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        return "zip"
    try:
        for magic, opener in _COMPRESSED.items():
            if head.startswith(magic):
                with opener(path) as file:
                    head = file.read(512)
    except (OSError, EOFError, zlib.error, lzma.LZMAError):
        return None
    return "tar" if head[257:262] == b"ustar" or (len(head) == 512 and not any(head)) else None


def size_limit(packed: int) -> int:
    """How many bytes an archive of ``packed`` bytes may become."""
    return max(FREE_BYTES, MAX_RATIO * packed)


def unpack(
    archive: Path,
    into: Path,
    max_bytes: int | None = None,
    max_members: int = MAX_MEMBERS,
) -> Path:
    """Unpacks zip, tar, tar.gz, tar.bz2 or tar.xz into the folder ``into`` and returns it.

    At most ``max_bytes`` (by default ``size_limit`` of the archive's size) and ``max_members`` members are
    accepted. What macOS adds for itself (``__MACOSX``, ``._name``, ``.DS_Store``) is left out.

    Raises:
        UserError: unknown or damaged archive; a member that points outside, is a device, or is a link to
            something that the archive does not hold; more bytes than the limit or the disk allows; a password;
            a folder that is a link in ``into``.
    """
    kind = archive_kind(archive)
    if kind is None:
        raise UserError(
            f"{archive}: neither zip nor tar(.gz, .bz2, .xz); unpack it yourself and give the folder"
        )
    limit = size_limit(archive.stat().st_size) if max_bytes is None else max_bytes
    try:
        into.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=into.parent, prefix=f".{into.name}-") as temporary:
            content = Path(temporary, "content")
            content.mkdir()
            members = _zip_members(archive) if kind == "zip" else _tar_members(archive)
            _extract(members, archive, content, limit, max_members)
            for folder, _, _ in os.walk(content):
                place = into / Path(folder).relative_to(content)
                if place != into and place.is_symlink():
                    raise UserError(f"{archive}: {place} is a link to elsewhere; choose another folder")
            shutil.copytree(content, into, copy_function=os.replace, dirs_exist_ok=True)
    except _DAMAGED as error:
        raise UserError(f"{archive}: damaged archive ({error}); download it again") from None
    except (OSError, shutil.Error) as error:
        raise UserError(f"{archive}: cannot be unpacked into {into} ({error})") from None
    return into


def _extract(members: Iterator[Member], archive: Path, folder: Path, limit: int, max_members: int) -> None:
    room = shutil.disk_usage(folder).free
    total = 0
    bar = progress_bar(desc=f"unpacking {archive.name}", unit="B", unit_scale=True, leave=False)
    with bar:
        for count, (name, declared, content) in enumerate(members, start=1):
            if count > max_members:
                raise UserError(f"{archive}: more than {max_members} members; refused as an archive bomb")
            parts = _safe_parts(archive, name)
            _check_size(archive, total + declared, limit, room)
            if not parts or parts[0] == "__MACOSX" or parts[-1] == ".DS_Store" or parts[-1].startswith("._"):
                continue
            target = folder.joinpath(*parts)
            if content is None:
                target.mkdir(parents=True, exist_ok=True)
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            with content, target.open("wb") as file:
                while chunk := content.read(CHUNK):
                    total += len(chunk)
                    _check_size(archive, total, limit, room)  # the declared size may lie
                    file.write(chunk)
                    bar.update(len(chunk))


def _check_size(archive: Path, size: int, limit: int, room: int) -> None:
    if size > limit:
        raise UserError(f"{archive}: unpacks to more than {limit / 1e9:.1f} GB; refused as an archive bomb")
    if size > room:
        raise UserError(
            f"{archive}: unpacks to more than the {room / 1e9:.1f} GB free on this disk; make room"
        )


def _safe_parts(archive: Path, name: str) -> tuple[str, ...]:
    """The components of a member's name; some zip programs write backslashes."""
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or "\0" in name:
        raise UserError(f"{archive}: member {name!r} points outside its folder; refused")
    return path.parts


def _zip_members(archive: Path) -> Iterator[Member]:
    with zipfile.ZipFile(archive) as file:
        for info in file.infolist():
            kind = stat.S_IFMT(info.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise UserError(
                    f"{archive}: member {info.filename!r} is a link or device; pack the files themselves"
                )
            if info.flag_bits & 1:
                raise UserError(f"{archive}: member {info.filename!r} has a password; pack it without one")
            try:
                yield info.filename, info.file_size, None if info.is_dir() else file.open(info)
            except NotImplementedError:
                raise UserError(
                    f"{archive}: unknown zip compression; pack it as plain zip or tar.gz"
                ) from None


class _Bounded:
    """A tar's bytes; ``tarfile`` reads an extended header at once, however long it claims to be."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.seek, self.tell = file, file.seek, file.tell

    def read(self, size: int) -> bytes:
        if size > MAX_HEADER:
            raise tarfile.ReadError(f"a header of {size} bytes")
        return self.file.read(size)


def _tar_members(archive: Path) -> Iterator[Member]:
    with archive.open("rb") as file:
        head = file.read(6)
    opener = next((opener for magic, opener in _COMPRESSED.items() if head.startswith(magic)), open)
    with opener(archive, "rb") as packed, tarfile.open(fileobj=_Bounded(packed), mode="r:") as file:
        for info in file:
            if info.isdir():
                yield info.name, 0, None
            elif info.isreg() or info.issym() or info.islnk():
                try:
                    content = file.extractfile(info)
                except KeyError:
                    content = None
                if content is None:
                    raise UserError(
                        f"{archive}: member {info.name!r} links to {info.linkname!r}, which is no file in it"
                    )
                yield info.name, info.size, content
            else:
                raise UserError(f"{archive}: member {info.name!r} is a device or pipe; pack plain files")
