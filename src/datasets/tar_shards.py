"""Shards: plain tar files of recordings and their texts, as WebDataset has them.

A member ``KEY.flac`` (wav, mp3, ogg, opus ...) is a recording; ``KEY.txt``, or ``KEY.json`` with "text", "sentence" or
"transcript", its text. Reading goes by the offsets of an index, so a shard is never unpacked.
"""

from __future__ import annotations

import io
import json
import os
import posixpath
import tarfile
from typing import Any, BinaryIO

from src.datasets.audio_io import probe_file
from src.datasets.index import Skipped, checked_id
from src.text_encoder.corpus import TEXT_KEYS
from src.utils.audio import AUDIO_SUFFIXES
from src.utils.errors import AudioError, UserError

BLOCK = tarfile.BLOCKSIZE
MAX_TEXT = 1 << 20  # bytes of a transcript
_COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")
_DAMAGED = (tarfile.TarError, ValueError, OverflowError, EOFError, RecursionError)

Members = dict[str, tarfile.TarInfo]  # by suffix


def add_member(shard: BinaryIO, name: str, content: bytes) -> int:
    """Appends a file to a tar that is being written; returns where its content begins."""
    info = tarfile.TarInfo(name)
    info.size = len(content)
    shard.write(info.tobuf(tarfile.GNU_FORMAT))
    offset = shard.tell()
    shard.write(content + bytes(-len(content) % BLOCK))
    return offset


def finish(shard: BinaryIO) -> None:
    """Writes the end of a tar."""
    shard.write(bytes(2 * BLOCK))


def read_member(shard: BinaryIO, name: str, offset: int, size: int, where: str) -> bytes:
    """The content of the member ``name``, which an index says begins at ``offset``.

    Raises ``AudioError`` that begins with ``where`` if it does not.
    """
    end = shard.seek(0, os.SEEK_END)
    if not BLOCK <= offset <= offset + size <= end:
        raise AudioError(
            f"{where}: bytes {offset} to {offset + size} are not in its shard of {end} bytes; copy the shard again"
        )
    shard.seek(offset - BLOCK)
    header, content = shard.read(BLOCK), shard.read(size)
    try:
        info = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
        # A long name, or one of other letters, may stand in another block.
        fits = info.size == size and (info.name == name or len(name) > 100 or not name.isascii())
    except (tarfile.TarError, ValueError):
        fits = False
    if not fits:
        raise AudioError(
            f"{where}: its shard has something else there; index and shards are not of one making"
        )
    return content


def scan(shard: BinaryIO, name: str) -> tuple[list[dict[str, Any]], list[Skipped]]:
    """The rows of an index for the shard called ``name``, and what in it cannot be used. Reads it once.

    The id of a recording is ``SHARD/KEY``: keys need to be unique within their shard only. Raises ``UserError``
    for a compressed tar.
    """
    shard.seek(0)
    if shard.read(6).startswith(_COMPRESSED):
        raise UserError(f"{name}: is compressed, and nothing in it can be sought; unpack it to a plain .tar")
    shard.seek(0)
    clips: dict[str, Members] = {}
    rows, skipped = [], []
    stem = name.removesuffix(".tar")
    try:
        with tarfile.open(fileobj=shard, mode="r:") as archive:
            for info in archive:
                key, suffix = posixpath.splitext(info.name.removeprefix("./"))
                if info.isreg() and not info.sparse:
                    clips.setdefault(key, {})[suffix.lower()] = info
            shard.seek(archive.offset)
        damage = "what follows is no member" if shard.read(BLOCK).strip(b"\0") else None
    except _DAMAGED as error:
        damage = str(error)
    if damage:
        reason = f"{name}: is cut off or damaged after {len(clips)} clips ({damage}); copy it again"
        skipped.append(Skipped(stem, name, reason))
    for key, members in clips.items():
        recordings = [info for suffix, info in members.items() if suffix in AUDIO_SUFFIXES]
        if not recordings:
            continue
        info = recordings[0]
        where = f"{name}/{info.name}"
        try:
            if len(recordings) > 1:
                raise AudioError(f"{where}: there are {len(recordings)} recordings of its key; keep one")
            utterance_id = checked_id(f"{stem}/{key}", where)
            content = read_member(shard, info.name, info.offset_data, info.size, where)
            row = {"id": utterance_id, "path": info.name, "offset": info.offset_data, "size": info.size}
            row["duration_s"] = probe_file(io.BytesIO(content), where)
            rows.append(row | _text(shard, members))
        except UserError as error:
            skipped.append(Skipped(ascii(f"{stem}/{key}")[1:-1], where, str(error)))
    return rows, skipped


def _text(shard: BinaryIO, members: Members) -> dict[str, str | None]:
    """Transcript and speaker; None for what is missing or cannot be read."""
    text = _content(shard, members.get(".txt"))
    try:
        noted = json.loads(_content(shard, members.get(".json")) or "{}")
    except (ValueError, RecursionError):
        noted = {}
    values = noted if isinstance(noted, dict) else {}
    if text is None:
        text = next((values[key] for key in TEXT_KEYS if isinstance(values.get(key), str)), None)
    speaker = values.get("speaker", values.get("speaker_id"))
    return {"text": _clean(text), "speaker": _clean(str(speaker)) if speaker else None}


def _content(shard: BinaryIO, info: tarfile.TarInfo | None) -> str | None:
    if info is None or info.size > MAX_TEXT:
        return None
    shard.seek(info.offset_data)
    try:
        return shard.read(info.size).decode("utf-8-sig")
    except UnicodeDecodeError:
        return None


def _clean(text: str | None) -> str | None:
    """None for what is no text: UTF-16 has NUL bytes, and half of a surrogate pair is valid JSON."""
    return None if text is None or "\0" in text or not _is_unicode(text) else text.strip()


def _is_unicode(text: str) -> bool:
    return text.encode(errors="ignore").decode() == text
