"""Mozilla Common Voice: one TSV per split beside ``clips/``."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from src.datasets.custom_dir import read_text
from src.datasets.index import Entry
from src.datasets.speech_dataset import SpeechDataset
from src.datasets.tree import find_below
from src.utils.errors import UserError


class CommonVoiceDataset(SpeechDataset):
    """``SPLIT.tsv`` (columns ``client_id``, ``path``, ``sentence``, ...) and ``clips/``, of any language.

    ``split``: ``train``, ``dev``, ``test``, ``validated`` or another TSV's name. They are looked for in
    ``root`` and at most 3 levels below it (``cv-corpus-21.0/en``). A sentence may hold quotes: they mean
    nothing to these files. Durations come from ``clip_durations.tsv`` where the release has one. An id is the
    clip's name without its suffix.

    Raises ``UserError`` when there is no such file or it lacks a column.
    """

    def __init__(self, root: str | Path, split: str = "train", **limits) -> None:
        home = find_below(Path(root), lambda f: (f / f"{split}.tsv").is_file() and (f / "clips").is_dir())
        if home is None:
            raise UserError(f"root={root}: no {split}.tsv beside clips/ in it; correct root or split")
        durations = _durations(home / "clip_durations.tsv")
        entries = []
        for row in _rows(home / f"{split}.tsv", ("path", "sentence")):
            name = row["path"] if Path(row["path"]).suffix else f"{row['path']}.mp3"
            path = home / "clips" / Path(name).name
            entries.append(
                Entry(path.stem, str(path), row["sentence"], row.get("client_id"), durations.get(path.name))
            )
        super().__init__(entries, name=f"common-voice-{split}", **limits)


def _rows(file: Path, needed: tuple[str, ...]) -> list[dict[str, str]]:
    rows = csv.DictReader(io.StringIO(read_text(file)), delimiter="\t", quoting=csv.QUOTE_NONE)
    missing = [column for column in needed if column not in (rows.fieldnames or [])]
    if missing:
        raise UserError(f"{file}:1: no column {missing[0]!r}; this is no table of Common Voice")
    found = []
    for row in rows:
        if any(row[column] is None for column in needed):
            raise UserError(f"{file}:{rows.line_num}: too few columns; download or unpack the corpus again")
        found.append(row)
    return found


def _durations(file: Path) -> dict[str, float]:
    """Clip -> seconds, where the release states them (milliseconds)."""
    if not file.is_file():
        return {}
    return {row["clip"]: float(row["duration[ms]"]) / 1000 for row in _rows(file, ("clip", "duration[ms]"))}
