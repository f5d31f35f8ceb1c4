"""Finding a corpus below the folder that the user gave: copies of corpora come with more or less nesting."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

LEVELS = 3


def find_below(root: Path, matches: Callable[[Path], bool], levels: int = LEVELS) -> Path | None:
    """The first folder that ``matches``, ``root`` itself or at most ``levels`` below it; the shallowest wins.

    Folders whose names are numbers (speakers of LibriSpeech) or begin with a dot are not entered.
    """
    folders = [root] if root.is_dir() else []
    for _ in range(levels + 1):
        for folder in folders:
            if matches(folder):
                return folder
        folders = [child for folder in folders for child in _children(folder)]
    return None


def _children(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as found:
            names = sorted(entry.name for entry in found if entry.is_dir())
    except PermissionError:
        return []
    return [folder / name for name in names if not name.isdigit() and not name.startswith(".")]


def find_audio(stem: Path, suffixes: tuple[str, ...]) -> Path:
    """``stem`` with the first suffix of which there is a file, else with the first one."""
    candidates = [stem.with_name(stem.name + suffix) for suffix in suffixes]
    return next((path for path in candidates if path.is_file()), candidates[0])
