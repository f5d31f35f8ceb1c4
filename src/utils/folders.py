"""Finds the speech in a folder that somebody else arranged, and links it where ``inference.py`` reads it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from src.utils.archives import archive_kind, unpack
from src.utils.audio import AUDIO_SUFFIXES
from src.utils.errors import UserError


def audio_files(root: Path) -> list[Path]:
    """Every audio file below ``root``, hidden files left out, in order."""
    found, seen = [], set()
    for folder, folders, names in os.walk(root, followlinks=True):
        if (real := os.path.realpath(folder)) in seen:  # a link that leads back up
            folders.clear()
            continue
        seen.add(real)
        found += [Path(folder, name) for name in names if not name.startswith(".")]
    return sorted(file for file in found if file.suffix.lower() in AUDIO_SUFFIXES)


def find_data_dir(root: Path) -> Path | None:
    """The folder that contains ``audio/`` with recordings in it, the nearest to ``root``, or None.

    ``root`` may also be that ``audio/`` itself. Of several equally near the first by name is taken.
    """
    root = root.resolve()
    depth = len(root.parts)
    found = {
        Path(*file.parts[: place + depth])
        for file in audio_files(root)
        for place, part in enumerate(file.parent.parts[depth:])
        if part == "audio"
    }
    if found:
        return min(found, key=lambda folder: (len(folder.parts), folder))
    return root.parent if root.name == "audio" and audio_files(root) else None


def lay_out(source: Path, out: Path) -> Path:
    """Links ``out/audio`` (and ``out/transcriptions`` where there are any) to ``source``'s speech.

    ``source`` holds ``audio/`` at any depth, or just recordings, with or without a text file of the same name
    beside each; or it is one recording. Nothing is copied and ``source`` stays as it is.

    Raises:
        UserError: no recordings in ``source``; ``out`` already holds data of its own.
    """
    if source.is_file() and source.suffix.lower() in AUDIO_SUFFIXES:
        source = _alone(source, out / "recording")
    files = audio_files(source.resolve())
    if not files:
        raise UserError(
            f"{source}: no audio files in it; give a folder or archive with audio/ or with recordings"
        )
    data_dir = find_data_dir(source)
    if data_dir is not None:
        audio, transcriptions = data_dir / "audio", data_dir / "transcriptions"
    else:
        audio = transcriptions = Path(os.path.commonpath([file.parent for file in files]))
    has_texts = any(transcriptions.rglob("*.txt"))
    for name, target in (("audio", audio), ("transcriptions", transcriptions if has_texts else None)):
        link = out / name
        if link.is_symlink():
            link.unlink()
        elif link.exists():
            raise UserError(f"{link}: already there and no link; choose another output folder")
        if target is not None:
            out.mkdir(parents=True, exist_ok=True)
            link.symlink_to(target, target_is_directory=True)
    return out


def _alone(file: Path, folder: Path) -> Path:
    """A folder that holds a link to ``file`` and nothing else."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / file.name).symlink_to(file.resolve())
    return folder


def unpack_all(source: Path, into: Path, depth: int = 2) -> Path:
    """The content of ``source``: an archive, or a folder that holds archives but no recordings.

    Everything is unpacked below ``into``, which is emptied first; ``depth`` bounds archives within archives.
    A source with nothing to unpack is returned as it is.
    """
    candidates = (
        [source] if source.is_file() else sorted(file for file in source.rglob("*") if file.is_file())
    )
    archives = [file for file in candidates if archive_kind(file)]
    if not archives or depth == 0 or (source.is_dir() and audio_files(source)):
        return source
    shutil.rmtree(into, ignore_errors=True)
    for archive in archives:
        place = archive.relative_to(source).as_posix().replace("/", "-") if source.is_dir() else archive.name
        unpack(archive, into / place.split(".")[0] if len(archives) > 1 else into)
    return unpack_all(into, into.with_name(into.name + "-inner"), depth - 1)
