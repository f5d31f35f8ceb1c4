"""A corpus in shards (tar files), here or on the web: for what does not fit a disk."""

from __future__ import annotations

import hashlib
import re
import urllib.parse
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from src.datasets.audio_io import decode_audio
from src.datasets.index import Entry, cache_dir, file_version
from src.datasets.samplers import MIXED_SHARDS, WINDOW, shard_order
from src.datasets.shard_index import INDEX_NAME, ShardIndex, scanned_index
from src.datasets.speech_dataset import SpeechDataset, Utterance
from src.datasets.tar_shards import read_member
from src.fetching.download_cache import DownloadCache, NotThere, bring, locked, remote_version
from src.utils.build import Positive, check
from src.utils.errors import AudioError, UserError

RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
PACKED = re.compile(r"\.(tar\.\w+|tgz)$")


class ShardsDataset(SpeechDataset):
    """Shards that ``scripts/make_shards.py`` wrote, or any WebDataset tars.

    With ``index.arrow`` beside them they open at once, whatever their number. Others are read through once, and
    their index is cached. Training passes through the shards in a random order, a few at a time. A shard on the
    web is downloaded when its turn comes, and the next one behind it; if that fails, its clips are skipped. What is
    read in another order (dev sets, inference, parts of a mixture) should fit into ``cache_gb``.

    Args:
        shards: a folder or its address (on the web it needs ``index.arrow``); or a list of tar files or their
            addresses; or a pattern of these, ``https://HOST/train-{000000..000012}.tar``.
        cache_gb: how many GiB of downloaded shards to keep, of this data set.

    Raises ``UserError`` when there are no such shards, they are compressed, or the index is of something else.
    """

    def __init__(self, shards: str | Sequence[str], cache_gb: float = 20.0, **limits) -> None:
        check("cache_gb", cache_gb, Positive)
        folder = hashlib.blake2b(repr(shards).encode(), digest_size=8).hexdigest()
        self.cache = DownloadCache(cache_dir() / "shards" / folder, round(cache_gb * 2**30))
        # The epoch, and the shards in it whose next one was asked for.
        self._ahead: tuple[int, set[int]] = (0, set())
        # Where each shard of the index is, and what changes with its content.
        self.places: list[str] = []
        self.versions: list[str] = []
        listed = _listed(shards)
        index = self._beside(str(shards)) if listed is None else self._of_list(listed)
        wanted = {_name(place) for place in listed or self.places}
        among = np.array([name in wanted for name in index.shards], dtype=bool)[index.shard_numbers]
        name = _name(listed[0]).removesuffix(".tar") if listed else _name(str(shards))
        self._choose(index, name, **limits, among=among)
        # Shards without a row are left out of the numbers, and so out of an epoch's order.
        numbers = index.shard_numbers[self.rows]
        used = np.bincount(numbers, minlength=len(index.shards)) > 0
        self._numbers = used.nonzero()[0]
        self.shards = (np.cumsum(used, dtype=np.int32) - 1)[numbers]
        if any(map(_is_remote, self.places)) and len(self):
            self._check_cache(cache_gb)

    def _check_cache(self, cache_gb: float) -> None:
        """Raises ``UserError`` where a shard would be downloaded again for each of its clips."""
        largest = int((self.index.table["offset"].to_numpy() + self.index.table["size"].to_numpy()).max())
        count = len(self._numbers)
        at_once = min(count, MIXED_SHARDS + 2 + WINDOW * count // len(self))
        if at_once * largest > self.cache.max_bytes:
            needed = f"{at_once} shards at a time, of up to {largest / 2**30:.2g} GiB"
            raise UserError(
                f"cache_gb={cache_gb:g}: training needs {needed}; raise it, or make smaller shards"
            )

    def _beside(self, folder: str) -> ShardIndex:
        """The index of a folder."""
        if _is_remote(folder):
            try:
                index = _index_in(folder)
            except UserError as error:
                remedy = f"without {INDEX_NAME} name the tars, such as {folder}/x-{{000..012}}.tar"
                raise UserError(f"shards={folder}: {error}; {remedy}") from None
        elif not Path(folder).is_dir():
            raise UserError(
                f"shards={folder}: no such folder; give a folder, an address or a pattern of .tar"
            )
        elif (Path(folder) / INDEX_NAME).is_file():
            index = _index_in(folder)
        else:
            files = sorted(str(file) for file in Path(folder).iterdir() if not file.name.startswith("."))
            found = [file for file in files if file.endswith(".tar")]
            if not found:
                problem = "its .tar are compressed" if any(map(PACKED.search, files)) else "no .tar in it"
                raise UserError(f"shards={folder}: {problem}; put plain .tar files there")
            return self._scanned(found)
        return self._placed(index, folder.rstrip("/") + "/")

    def _placed(self, index: ShardIndex, folder: str) -> ShardIndex:
        self.places = [folder + name for name in index.shards]
        self.versions = [index.file.name] * len(self.places)
        return index

    def _of_list(self, listed: list[str]) -> ShardIndex:
        """An index that has the listed shards, and perhaps others."""
        folders = {place[: -len(_name(place))] for place in listed}
        if len(folders) == 1 and all(place.endswith(".tar") for place in listed):
            folder = folders.pop()
            index = _index_in(folder) if _has_index(folder) else None
            if index is not None and {_name(place) for place in listed} <= set(index.shards):
                return self._placed(index, folder)
        return self._scanned(listed)

    def _scanned(self, places: list[str]) -> ShardIndex:
        names = [_name(place) for place in places]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise UserError(
                f"shards: two are called {twice}; their clips would have the same ids; rename one"
            )
        with ThreadPoolExecutor(16) as pool:
            self.places, self.versions = places, list(pool.map(_version, places))
        return scanned_index(names, self.versions, self._open)

    def _open(self, number: int) -> BinaryIO:
        """A shard of the index. Raises ``UserError`` or ``OSError``."""
        place = self.places[number]
        return self.cache.open(place, self.versions[number]) if _is_remote(place) else Path(place).open("rb")

    @property
    def ids(self) -> list[str]:
        self.index.validate("id")
        return super().ids

    @property
    def texts(self) -> list[str | None]:
        self.index.validate("text")
        return super().texts

    def entry(self, row: int) -> Entry:
        """What the index says of a row. Raises ``AudioError`` when that is damaged."""
        return self._entry(self.index.row(int(self.rows[row])))

    def _entry(self, found: dict[str, Any]) -> Entry:
        path = f"{self.places[found['shard']]}/{found['path']}"
        return Entry(found["id"], path, found["text"], found["speaker"], found["duration_s"])

    def __getitem__(self, row: int) -> Utterance:
        found = self.index.row(int(self.rows[row]))
        entry = self._entry(found)
        try:
            with self._open(found["shard"]) as shard:
                content = read_member(shard, found["path"], found["offset"], found["size"], entry.path)
        except OSError as error:
            raise AudioError(
                f"{entry.path}: cannot be read ({error.strerror}); copy the shard again"
            ) from None
        except UserError as error:
            raise AudioError(str(error)) from None
        return Utterance(entry.id, decode_audio(content, entry.path), entry.text, entry.speaker, entry.path)

    def version(self, row: int) -> tuple:
        number = self._numbers[int(self.shards[row])]
        place = self.places[number]
        return self.entry(row).path, self.versions[number] if _is_remote(place) else file_version(place)

    def prefetch(self, row: int, epoch: int, seed: int) -> None:
        """Begins to download the shard that the epoch comes to after the row's, once in an epoch and process."""
        shard = int(self.shards[row])
        if self._ahead[0] != epoch:
            self._ahead = (epoch, set())
        if not _is_remote(self.places[self._numbers[shard]]) or shard in self._ahead[1]:
            return
        self._ahead[1].add(shard)
        order = shard_order(seed, epoch, int(self.shards.max()) + 1)
        for following in order[1:][order[:-1] == shard]:
            number = self._numbers[following]
            self.cache.fetch_ahead(self.places[number], self.versions[number])


def _listed(shards: str | Sequence[str]) -> list[str] | None:
    """The tars that a list or a pattern names; None for a folder. Raises ``UserError`` for what is neither."""
    if not isinstance(shards, str | Path):
        if not isinstance(shards, Sequence) or not shards or not all(isinstance(s, str) for s in shards):
            raise UserError(f"shards={shards!r} must be a folder, an address, a pattern, or a list of tars")
        return [place for pattern in shards for place in _expanded(pattern)]
    name = _name(str(shards))
    return _expanded(str(shards)) if name.endswith(".tar") or PACKED.search(name) else None


def _expanded(pattern: str) -> list[str]:
    """Every place of a pattern. Raises ``UserError`` for a range that has nothing in it."""
    match = RANGE.search(pattern)
    if match is None:
        if not _name(pattern).endswith(".tar"):
            problem = "is compressed" if PACKED.search(_name(pattern)) else "is no .tar"
            raise UserError(f"shards={pattern}: {problem}; shards are plain .tar files")
        return [pattern]
    first, last = int(match[1]), int(match[2])
    if not first <= last < first + 10**6:
        raise UserError(f"shards={pattern}: {match[0]} matches nothing; write the smaller number first")
    numbers = (f"{number:0{len(match[1])}d}" for number in range(first, last + 1))
    return [
        place for n in numbers for place in _expanded(pattern[: match.start()] + n + pattern[match.end() :])
    ]


def _has_index(folder: str) -> bool:
    """Raises ``UserError`` when a server does not say."""
    if not _is_remote(folder):
        return Path(folder, INDEX_NAME).is_file()
    try:
        remote_version(folder + INDEX_NAME)
    except NotThere:
        return False
    return True


def _index_in(folder: str) -> ShardIndex:
    """The index in a folder; one on the web is fetched when it is new. Raises ``UserError`` without one."""
    place = f"{folder.rstrip('/')}/{INDEX_NAME}" if folder else INDEX_NAME
    if not _is_remote(place):
        return ShardIndex(Path(place))
    version = hashlib.blake2b(f"{place} {remote_version(place)}".encode(), digest_size=16).hexdigest()
    file = cache_dir() / "indexes" / f"shards-{version}.arrow"
    with locked(file):
        bring(place, file)
    return ShardIndex(file)


def _version(place: str) -> str:
    """What changes when the content of a shard does. Raises ``UserError`` when there is no such shard."""
    if _is_remote(place):
        return f"{place} {remote_version(place)}"
    try:
        status = Path(place).stat()
    except OSError as error:
        raise UserError(f"shards: {place} cannot be opened ({error.strerror}); check the path") from None
    return f"{status.st_size} {status.st_mtime_ns}"


def _name(place: str) -> str:
    """The last part of a path or address, without what follows a question mark in an address."""
    path = urllib.parse.urlsplit(place).path if _is_remote(place) else place
    return path.rstrip("/").rpartition("/")[2]


def _is_remote(place: str) -> bool:
    return place.startswith(("http://", "https://"))
