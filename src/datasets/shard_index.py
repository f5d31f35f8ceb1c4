"""The index of a corpus in shards: of any size, because no row of it is a Python object before it is read.

It has the columns of every index (``path`` is a member's name), and of each recording the number of its shard and
where in it the content lies. It notes the shards' names and may come from strangers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path, PurePath
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa

from src.datasets.index import SCHEMA, Index, Skipped, cache_dir, checked_id, write_index
from src.datasets.tar_shards import scan
from src.utils.errors import AudioError, UserError
from src.utils.progress import progress_bar

INDEX_NAME = "index.arrow"  # beside the shards
SHARD_SCHEMA = pa.schema([*SCHEMA, ("shard", pa.int32()), ("offset", pa.int64()), ("size", pa.int64())])
FORMAT = 1  # raise it when scanning finds something else, so that old caches are not read
BATCH_ROWS = 1 << 16  # a column lies together for so many rows, so that durations are read without the texts
OPTIONAL = ("text", "speaker")


class ShardIndex(Index):
    """A memory-mapped index. ``shards``: their names; ``shard_numbers``: [rows] which one each row is in.

    Raises ``UserError`` for a file that is no such index, or that says impossible things.
    """

    def _open(self) -> None:
        try:
            super()._open()
            self._check()
        except (pa.ArrowException, OSError, ValueError, TypeError, RecursionError) as error:
            raise UserError(
                f"{self.file}: no index of shards ({error}); remove it, or make the shards again"
            ) from None

    def _check(self) -> None:
        self.table.validate()
        if not self.table.schema.equals(SHARD_SCHEMA):
            raise ValueError(f"its columns are {', '.join(self.table.schema.names)[:200]}")
        self.shards = json.loads((self.table.schema.metadata or {}).get(b"shards", b"[]"))
        for name in self.shards:
            if not isinstance(name, str) or PurePath(name).name != name or not name.endswith(".tar"):
                raise ValueError(f"{ascii(name)[:60]} cannot be a shard beside it")
        for name in SHARD_SCHEMA.names:
            if name not in OPTIONAL and self.table[name].null_count:
                raise ValueError(f"column {name} has gaps")
        self.shard_numbers = self.table["shard"].to_numpy()
        if len(self) and not 0 <= self.shard_numbers.min() <= self.shard_numbers.max() < len(self.shards):
            raise ValueError(f"it has rows of other shards than its {len(self.shards)}")
        durations = self.durations
        if len(self) and not 0 < durations.min() <= durations.max() < np.inf:  # NaN is neither
            raise ValueError("it states durations that cannot be")
        self._batches = self.table.to_batches()
        self._ends = np.cumsum([len(batch) for batch in self._batches])

    def row(self, number: int) -> dict[str, Any]:
        """One recording as a dict of the columns. Raises ``AudioError`` when it is damaged or its id unsafe."""
        batch = int(np.searchsorted(self._ends, number, side="right"))
        one = self._batches[batch].slice(number - int(self._ends[batch]) + len(self._batches[batch]), 1)
        try:
            one.validate(full=True)
            row = one.to_pylist()[0]
            checked_id(row["id"], f"{self.file}: row {number}")
        except (pa.ArrowException, ValueError) as error:
            raise AudioError(f"{self.file}: row {number} is damaged ({error}); copy it again") from None
        except UserError as error:
            raise AudioError(str(error)) from None
        return row

    def validate(self, column: str) -> None:
        """Reads a whole column once. Raises ``UserError`` if it is damaged, so that it can be taken as it is."""
        try:
            self.table[column].validate(full=True)
        except pa.ArrowException as error:
            raise UserError(f"{self.file}: column {column} is damaged ({error}); copy it again") from None


def write_piece(file: Path, rows: Sequence[dict[str, Any]], skipped: Sequence[Skipped]) -> None:
    """The index of one shard, of which many are merged into one."""
    schema = SHARD_SCHEMA.with_metadata({"skipped": _notes(skipped)})
    table = pa.Table.from_pylist([{**row, "shard": 0} for row in rows], schema=schema)
    write_index(file, schema, table.to_batches())


def merge(pieces: Sequence[Path], shards: Sequence[str], file: Path) -> None:
    """Writes the index of all ``shards`` (names), each of which has its piece."""
    skipped = [item for piece in pieces for item in Index(piece).skipped]
    schema = SHARD_SCHEMA.with_metadata({"shards": json.dumps(list(shards)), "skipped": _notes(skipped)})
    place = SHARD_SCHEMA.get_field_index("shard")

    def batches() -> Iterator[pa.RecordBatch]:
        waiting: list[pa.Table] = []
        for number, piece in enumerate(pieces):
            table = Index(piece).table
            numbers = pa.array(np.full(len(table), number, dtype=np.int32))
            waiting.append(table.set_column(place, SHARD_SCHEMA.field(place), numbers))
            if number == len(pieces) - 1 or sum(map(len, waiting)) >= BATCH_ROWS:
                yield from pa.concat_tables(waiting).combine_chunks().to_batches()
                waiting.clear()

    write_index(file, schema, batches())


def scanned_index(
    shards: Sequence[str], versions: Sequence[str], open_shard: Callable[[int], BinaryIO]
) -> ShardIndex:
    """The index of shards that came without one, from the cache where they have been read before.

    Args:
        shards: their names.
        versions: what changes with each one's content.
        open_shard: opens one by its number.
    """
    folder = cache_dir() / "indexes"
    keys = [_digest(name, version) for name, version in zip(shards, versions, strict=True)]
    whole = folder / f"shards-{_digest(*keys)}.arrow"
    if not _is_index(whole):
        pieces = [folder / f"shard-{key}.arrow" for key in keys]
        for number, piece in enumerate(progress_bar(pieces, desc="index of shards", unit="shard")):
            if not _is_index(piece):
                with open_shard(number) as shard:
                    write_piece(piece, *scan(shard, shards[number]))
        merge(pieces, shards, whole)
    return ShardIndex(whole)


def _is_index(file: Path) -> bool:
    """False where there is none, or one that a full disk or a kill has damaged."""
    try:
        Index(file)
    except (pa.ArrowException, OSError, ValueError, TypeError, KeyError):
        return False
    return True


def _digest(*parts: str) -> str:
    return hashlib.blake2b(repr((FORMAT, parts)).encode(), digest_size=16).hexdigest()


def _notes(skipped: Sequence[Skipped]) -> str:
    return json.dumps([asdict(item) for item in skipped])
