"""One file that lists recordings: JSON lines (NeMo, ESPnet and many others) or tab-separated text."""

from __future__ import annotations

import json
import math
from pathlib import Path, PurePath
from typing import Any

from src.datasets.index import Entry, checked_id
from src.datasets.speech_dataset import SpeechDataset
from src.text_encoder.corpus import TEXT_KEYS
from src.utils.errors import UserError
from src.utils.files import read_text

AUDIO_KEYS = ("audio", "audio_filepath", "audio_path", "path")
DURATION_KEYS = ("duration", "duration_s")


class ManifestDataset(SpeechDataset):
    """``.jsonl`` (or ``.json``: one object a line) or ``.tsv`` (``audio<TAB>transcript``).

    Keys of an object: ``audio`` (or ``audio_filepath``, ``audio_path``, ``path``); optional ``text``
    (``transcript``, ``sentence``), ``id``, ``speaker``, ``duration`` (seconds; believed, so nothing is
    probed). A TSV may begin with a header that names its columns in the same words; without one the columns
    are audio and transcript. Quotes mean nothing.

    Relative paths are relative to the manifest's folder. Where no id is given, it is the path below that
    folder (or the whole path) without its suffix.

    Raises ``UserError`` naming ``file:line`` for a line that cannot be used, and for an id that occurs twice.
    """

    def __init__(self, path: str | Path, **limits) -> None:
        file = Path(path)
        if not file.is_file():
            raise UserError(f"path={file}: no such manifest; give a .jsonl or .tsv file")
        suffix = file.suffix.lower()
        if suffix not in (".jsonl", ".json", ".tsv"):
            raise UserError(
                f"path={file}: {suffix or 'no suffix'} is no kind of manifest; use .jsonl or .tsv"
            )
        records = _read_tsv(file) if suffix == ".tsv" else _read_json_lines(file)
        entries: list[Entry] = []
        lines: dict[str, int] = {}
        for number, record in records:
            entry = _entry(record, file, number)
            if entry.id in lines:
                twice = f"id {entry.id!r} stands in line {lines[entry.id]} already"
                raise UserError(f"{file}:{number}: {twice}; give every line an id of its own")
            lines[entry.id] = number
            entries.append(entry)
        if not entries:
            raise UserError(f"path={file}: lists no recordings")
        super().__init__(entries, name=file.stem, **limits)


def _read_json_lines(file: Path) -> list[tuple[int, dict[str, Any]]]:
    records = []
    for number, line in enumerate(read_text(file).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            str(record).encode()  # half of a surrogate pair is valid JSON, but no text
        except ValueError as error:
            raise UserError(f"{file}:{number}: not JSON ({error}); write one object a line") from None
        if not isinstance(record, dict):
            raise UserError(f"{file}:{number}: {line[:60]!r} is no JSON object; write one object a line")
        records.append((number, record))
    return records


def _read_tsv(file: Path) -> list[tuple[int, dict[str, Any]]]:
    records = []
    columns = ["audio", "text"]
    for number, line in enumerate(read_text(file).split("\n"), start=1):
        fields = [field.strip() for field in line.split("\t")]
        if not line.strip():
            continue
        if number == 1 and fields[0].lower() in (*AUDIO_KEYS, "id"):
            columns = [field.lower() for field in fields]
            continue
        if len(fields) > len(columns) or len(fields) < min(2, len(columns)):
            expected = "<TAB>".join(columns)
            raise UserError(f"{file}:{number}: {len(fields)} columns, expected {len(columns)} ({expected})")
        records.append((number, dict(zip(columns, fields, strict=False))))
    return records


def _entry(record: dict[str, Any], file: Path, number: int) -> Entry:
    where = f"{file}:{number}"

    def value(*keys: str) -> Any:
        return next((record[key] for key in keys if record.get(key) is not None), None)

    audio, text, speaker = value(*AUDIO_KEYS), value(*TEXT_KEYS), value("speaker", "speaker_id")
    if not isinstance(audio, str) or not audio:
        raise UserError(f"{where}: names no recording; add one of the keys {', '.join(AUDIO_KEYS)}")
    if text is not None and not isinstance(text, str):
        raise UserError(f"{where}: text {text!r} is no string; put it in quotes")
    if value("offset"):
        raise UserError(
            f"{where}: a part of a recording (offset {value('offset')}) cannot be read; cut it out first"
        )
    path = file.parent / audio
    try:
        base = PurePath(audio) if not Path(audio).is_absolute() else path.relative_to(file.parent.absolute())
    except ValueError:
        base = PurePath(audio)
    given = value("id", "utterance_id")
    # A recording may lie above the manifest's folder, an id may not lead out of save_dir.
    below = "/".join(part for part in base.with_suffix("").parts if part not in (base.anchor, "..", "/"))
    utterance_id = checked_id(str(given) if given is not None else below, where)
    return Entry(utterance_id, str(path), text, str(speaker) if speaker else None, _seconds(value, where))


def _seconds(value: Any, where: str) -> float | None:
    duration = value(*DURATION_KEYS)
    if duration is None or duration == "":
        return None
    try:
        seconds = float(duration)
    except (TypeError, ValueError):
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise UserError(f"{where}: duration {duration!r} is no number of seconds; correct it or leave it out")
    return seconds
