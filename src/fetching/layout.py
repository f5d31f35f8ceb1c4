"""Finds the speech in a folder that somebody else arranged, and links it where ``inference.py`` reads it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from src.fetching.archives import archive_kind, size_limit, unpack
from src.utils.audio import AUDIO_SUFFIXES
from src.utils.errors import UserError
from src.utils.files import audio_files, files_below


def find_data_dirs(root: Path) -> list[Path]:
    """The folders that contain ``audio/`` with recordings in it, in order.

    ``root`` may also be that ``audio/`` itself. An ``audio/`` within an ``audio/`` is a part of it.
    """
    root = root.resolve()
    files = audio_files(root)
    places = [file.parent.relative_to(root).parts for file in files]
    found = {root.joinpath(*parts[: parts.index("audio")]) for parts in places if "audio" in parts}
    if not found and root.name == "audio" and files:
        return [root.parent]
    return sorted(found)


def lay_out(source: Path, out: Path) -> Path:
    """Links ``out/audio`` (and ``out/transcriptions`` where there are any) to ``source``'s speech.

    ``source`` holds ``audio/`` at any depth, or just recordings, with or without a text file of the same name
    beside each; or it is one recording. Where it holds ``audio/`` several times, their paths become a part of
    the ids. Nothing is copied and ``source`` stays as it is.

    Raises:
        UserError: no recordings in ``source``; ``out`` already holds data of its own.
    """
    source = source.resolve()
    for link in (out / "audio", out / "transcriptions"):
        if link.exists() and not link.is_symlink():
            raise UserError(f"{link}: already there and no link; choose another output folder")
    layout = out / ".downloads" / "layout"
    if source.is_file() and source.suffix.lower() in AUDIO_SUFFIXES:
        _make_links(_emptied(layout, source), {f"audio/{source.name}": source})
        source = layout.resolve()
    files = audio_files(source)
    if not files:
        raise UserError(
            f"{source}: no audio files in it; give a folder or archive with audio/ or with recordings"
        )
    data_dirs = find_data_dirs(source)
    outside = [file for file in files if "audio" not in file.relative_to(source).parts]
    if outside and data_dirs not in ([], [source.parent]):
        print(f"note: {len(outside)} recordings outside audio/ are left out, {ascii(outside[0].name)} first")
    if len(data_dirs) > 1:
        links = {}
        for folder in data_dirs:
            place = (folder.relative_to(source) / "audio").as_posix()
            links |= {f"{name}/{place}": folder / name for name in ("audio", "transcriptions")}
        _make_links(_emptied(layout, source), links)
        data_dirs = [layout.resolve()]
    if data_dirs:
        audio, transcriptions = data_dirs[0] / "audio", data_dirs[0] / "transcriptions"
    else:
        audio = transcriptions = Path(os.path.commonpath([file.parent for file in files]))
    for name in ("audio", "transcriptions"):
        (out / name).unlink(missing_ok=True)
    _make_links(out, {"audio": audio})
    if files_below(transcriptions, {".txt"}):
        _make_links(out, {"transcriptions": transcriptions})
    return out


def _make_links(folder: Path, targets: Mapping[str, Path]) -> None:
    """Links below ``folder`` to those of ``targets`` that exist."""
    for name, target in targets.items():
        if target.exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).symlink_to(target)


def _emptied(folder: Path, source: Path) -> Path:
    """``folder``, one of ours, without what an earlier run left there."""
    if folder.resolve() in (source, *source.parents):
        raise UserError(f"{source}: lies in {folder}, which is emptied first; give the data another place")
    shutil.rmtree(folder, ignore_errors=True)
    return folder


def unpack_all(source: Path, into: Path, depth: int = 2, budget: int | None = None) -> Path:
    """The content of ``source``: an archive, or a folder that holds archives but no recordings.

    Everything is unpacked below ``into``, which is emptied first, several archives each into a folder of its
    own name; ``depth`` bounds archives within archives, and all of them share one ``budget`` of bytes (by default
    that of an archive of their size). A source with nothing to unpack is returned as it is.
    """
    archives = [file for file in ([source] if source.is_file() else files_below(source)) if _is_archive(file)]
    if archives and source.is_dir() and audio_files(source):
        names = ", ".join(ascii(file.name) for file in archives[:5])
        print(f"note: {len(archives)} archives beside the recordings stay packed: {names}")
        return source
    if not archives or depth == 0:
        return source
    if budget is None:
        budget = size_limit(sum(archive.stat().st_size for archive in archives))
    _emptied(into, source.resolve())
    for archive in archives:
        place = into / archive.relative_to(source) if len(archives) > 1 else into
        unpack(archive, place, max_bytes=budget)
        budget -= sum(file.stat().st_size for file in files_below(place))
    return unpack_all(into, into.with_name(into.name + "-inner"), depth - 1, budget)


def _is_archive(file: Path) -> bool:
    return file.is_file() and archive_kind(file) is not None
