"""Mozilla Common Voice: one TSV per split beside ``clips/``."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator
from pathlib import Path

from src.datasets.index import Entry, checked_id
from src.datasets.speech_dataset import SpeechDataset
from src.datasets.tree import find_below
from src.utils.errors import UserError
from src.utils.files import read_text


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
        for where, row in _rows(home / f"{split}.tsv", ("path", "sentence")):
            name = row["path"] if Path(row["path"]).suffix else f"{row['path']}.mp3"
            path = home / "clips" / Path(name).name
            clip = checked_id(Path(row["path"]).stem, where)
            entries.append(
                Entry(clip, str(path), row["sentence"], row.get("client_id"), durations.get(path.name))
            )
        super().__init__(entries, name=f"common-voice-{split}", **limits)


def _rows(file: Path, needed: tuple[str, ...]) -> Iterator[tuple[str, dict[str, str]]]:
    """Each row and where it stands."""
    rows = csv.DictReader(io.StringIO(read_text(file)), delimiter="\t", quoting=csv.QUOTE_NONE)
    try:
        missing = [column for column in needed if column not in (rows.fieldnames or [])]
        if missing:
            raise UserError(f"{file}:1: no column {missing[0]!r}; this is no table of Common Voice")
        for row in rows:
            if any(row[column] is None for column in needed):
                raise UserError(
                    f"{file}:{rows.line_num}: too few columns; download or unpack the corpus again"
                )
            yield f"{file}:{rows.line_num}", row
    except csv.Error as error:
        raise UserError(f"{file}:{rows.reader.line_num}: {error}; correct or remove the line") from None


def _durations(file: Path) -> dict[str, float]:
    """Clip -> seconds, where the release states them (milliseconds)."""
    found = {}
    if file.is_file():
        for where, row in _rows(file, ("clip", "duration[ms]")):
            try:
                found[row["clip"]] = float(row["duration[ms]"]) / 1000
            except ValueError:
                found[row["clip"]] = math.nan
            if not 0 <= found[row["clip"]] < math.inf:
                stated = row["duration[ms]"][:60]
                raise UserError(f"{where}: duration {stated!r} is no number of milliseconds; correct it")
    return found
