"""The index of a corpus: one memory-mapped Arrow table: once it is made, its rows cost no memory.

Columns: id, path, text (as written in the corpus, null when there is none), duration_s, speaker. Durations
take time to probe, so an index is cached on disk under a name made of its source and of every file's size
and date: when a file changes, the name changes, and the index is made anew.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from itertools import repeat
from pathlib import Path

import numpy as np
import pyarrow as pa

from src.datasets.audio_io import probe_duration
from src.utils.errors import AudioError, UserError
from src.utils.progress import progress_bar

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("path", pa.string()),
        ("text", pa.string()),
        ("duration_s", pa.float64()),
        ("speaker", pa.string()),
    ]
)
FORMAT = 1  # raise it when the layout changes, so that old caches are not read
MAX_PART_BYTES = 200  # file systems take 255, and an id gets suffixes
_UNSAFE = re.compile("[\\x00-\\x1f\\x7f-\\x9f\\u2028\\u2029\\ud800-\\udfff]")


@dataclass(frozen=True)
class Entry:
    """One recording that a corpus lists; a duration of None is probed from the file."""

    id: str
    path: str
    text: str | None = None
    speaker: str | None = None
    duration_s: float | None = None


@dataclass(frozen=True)
class Skipped:
    """A recording that cannot be used, and why."""

    id: str
    path: str
    reason: str


def checked_id(name: str, where: str) -> str:
    """``name``, if it can name a file below ``save_dir``; else ``UserError`` that begins with ``where``."""
    for part in name.split("/"):
        if not part or part.startswith(".") or _UNSAFE.search(part) or len(part.encode()) > MAX_PART_BYTES:
            raise UserError(
                f"{where}: id {name[:60]!r} cannot name a file; use letters, digits, - and _, below "
                f"{MAX_PART_BYTES} bytes"
            )
    return name


class Index:
    """A table of recordings; ``skipped`` names those that were listed but cannot be read."""

    def __init__(self, file: Path) -> None:
        self.file = Path(file)
        self._open()

    def _open(self) -> None:
        with pa.memory_map(str(self.file)) as source:
            self.table = pa.ipc.open_file(source).read_all()
        notes = (self.table.schema.metadata or {}).get(b"skipped", b"[]")
        self.skipped = [Skipped(**note) for note in json.loads(notes)]

    def __len__(self) -> int:
        return self.table.num_rows

    def __getstate__(self) -> dict:
        return {"file": self.file}  # a worker maps the file again instead of copying the table

    def __setstate__(self, state: dict) -> None:
        self.file = state["file"]
        self._open()

    def row(self, number: int) -> dict:
        """One recording as a dict of the columns."""
        return {name: self.table[name][number].as_py() for name in SCHEMA.names}

    def column(self, name: str) -> list:
        return self.table[name].to_pylist()

    @property
    def durations(self) -> np.ndarray:
        """[rows] seconds."""
        return self.table["duration_s"].to_numpy()


def cache_dir() -> Path:
    """Where indexes are kept: ``LECTERN_CACHE``, else ``~/.cache/lectern``, else a temporary folder."""
    try:
        wanted = Path(os.environ.get("LECTERN_CACHE") or Path.home() / ".cache" / "lectern")
        (wanted / "indexes").mkdir(parents=True, exist_ok=True)
        if os.access(wanted / "indexes", os.W_OK):
            return wanted
    except (OSError, RuntimeError):  # a read-only home, or none
        pass
    return _temporary_cache()


@functools.cache
def _temporary_cache() -> Path:
    """Of this process."""
    folder = Path(tempfile.mkdtemp(prefix="lectern-"))
    (folder / "indexes").mkdir()
    return folder


def build_index(
    entries: Sequence[Entry],
    skipped: Sequence[Skipped] = (),
    name: str = "corpus",
    probe: Callable[[Entry], float] = lambda entry: probe_duration(entry.path),
) -> Index:
    """The index of ``entries``, from the cache when nothing changed.

    ``skipped`` is what the corpus itself left out; ``probe`` gives the seconds of an entry that states none.
    A recording that is listed twice is used once, and an id names the first recording that has it. A cached
    failure is not believed: what could not be read is probed again, because its cause may be gone.
    """
    first: dict[tuple[str, str], Entry] = {}
    owner: dict[str, str] = {}
    skipped = list(skipped)
    for entry in entries:
        if (entry.id, entry.path) in first:
            skipped.append(Skipped(entry.id, entry.path, f"{entry.path}: listed again; used once"))
        elif entry.id in owner:
            reason = f"{entry.path}: {owner[entry.id]} has the same id; give it another one"
            skipped.append(Skipped(entry.id, entry.path, reason))
        else:
            first[entry.id, entry.path] = entry
            owner[entry.id] = entry.path
    entries = list(first.values())
    digest = hashlib.blake2b(f"{FORMAT}".encode(), digest_size=16)
    for entry in entries:
        digest.update(repr((entry, file_version(entry.path))).encode())
    for item in skipped:
        digest.update(repr(item).encode())
    short = re.sub(r"[^\w.-]+", "_", name).encode()[:100].decode(errors="ignore")
    file = cache_dir() / "indexes" / f"{short}-{digest.hexdigest()}.arrow"
    index = _cached(file, len(entries) + len(skipped))
    if index is None:
        _write(entries, skipped, file, name, probe)
        return Index(file)
    failed = [first[item.id, item.path] for item in index.skipped[len(skipped) :]]
    again = {(entry.id, entry.path): _duration_or_reason(entry, probe) for entry in failed}
    healed = {key: duration for key, duration in again.items() if isinstance(duration, float)}
    if healed:
        keys = zip(index.column("id"), index.column("path"), strict=True)
        known = dict(zip(keys, index.column("duration_s"), strict=True)) | healed
        stated = [replace(entry, duration_s=known.get((entry.id, entry.path))) for entry in entries]
        return build_index(stated, skipped, name, probe)
    return index


def _cached(file: Path, recordings: int) -> Index | None:
    """The index in ``file`` if it is there, undamaged and of that many recordings."""
    try:
        index = Index(file)
    except (pa.ArrowException, OSError, ValueError, TypeError):
        return None
    whole = index.table.schema.equals(SCHEMA) and len(index) + len(index.skipped) == recordings
    return index if whole else None


def file_version(path: str) -> tuple[int, int] | None:
    """Size and date of a file; None where there is none."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):  # ValueError: a NUL in the path
        return None
    return status.st_size, status.st_mtime_ns


def _duration_or_reason(entry: Entry, probe: Callable[[Entry], float]) -> float | str:
    try:
        return entry.duration_s if entry.duration_s is not None else float(probe(entry))
    except AudioError as error:
        return str(error)


def _write(
    entries: list[Entry], skipped: list[Skipped], file: Path, name: str, probe: Callable[[Entry], float]
) -> None:
    with ThreadPoolExecutor() as pool:
        probes = pool.map(_duration_or_reason, entries, repeat(probe))
        shown = progress_bar(
            probes, total=len(entries), desc=f"index of {name}", unit="entry", disable=len(entries) < 2000
        )
        durations = list(shown)
    rows, skipped = [], list(skipped)
    for entry, duration in zip(entries, durations, strict=True):
        if isinstance(duration, str):
            skipped.append(Skipped(entry.id, entry.path, duration))
        else:
            rows.append({**asdict(entry), "duration_s": duration})
    schema = SCHEMA.with_metadata({"skipped": json.dumps([asdict(item) for item in skipped])})
    write_index(file, schema, pa.Table.from_pylist(rows, schema=schema).to_batches())


def write_index(file: Path, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> None:
    """Writes an index whole or not at all. Raises ``UserError`` when the disk refuses."""
    unfinished = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        with pa.OSFile(str(unfinished), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
            for batch in batches:
                writer.write_batch(batch)
        os.replace(unfinished, file)
    except OSError as error:
        raise UserError(f"{file}: cannot be written ({error}); make room or set LECTERN_CACHE") from None
