"""Which files a folder holds, texts in them, and files and folders that are written whole."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from src.utils.audio import AUDIO_SUFFIXES
from src.utils.errors import TextError, UserError


def files_below(root: Path, suffixes: Collection[str] | None = None) -> list[Path]:
    """Every file below ``root`` with one of ``suffixes`` (any letter case), in order; hidden ones left out.

    Links to folders are followed, each folder is entered once. A link that leads nowhere counts as a file.
    """
    found, seen, roots = [], set(), [root]
    for start in roots:  # grows: a folder's own place comes before the links to it
        for folder, folders, names in os.walk(start):
            if (real := os.path.realpath(folder)) in seen:
                folders.clear()
                continue
            seen.add(real)
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            paths = [Path(folder, name) for name in folders]
            roots += [path for path in paths if path.is_symlink()]
            found += [Path(folder, name) for name in names if not name.startswith(".")]
    return sorted(file for file in found if suffixes is None or file.suffix.lower() in suffixes)


def audio_files(root: Path) -> list[Path]:
    """Every audio file below ``root``, as ``files_below`` finds them."""
    return files_below(root, AUDIO_SUFFIXES)


def read_text(file: Path) -> str:
    """The content of a UTF-8 file (with or without a byte-order mark); ``TextError`` for another encoding."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise TextError(f"{file}: not UTF-8 (byte {error.start}); save it as UTF-8") from None
    except OSError as error:
        raise TextError(f"{file}: cannot be read ({error.strerror}); check its permissions") from None
    if "\0" in text:  # UTF-16 without its mark is valid UTF-8
        raise TextError(f"{file}: not UTF-8 (it holds NUL bytes, as UTF-16 does); save it as UTF-8")
    return text


def check_output(file: Path, option: str = "--out") -> None:
    """Raises ``UserError`` where no file could be written, before the work that is to fill it; changes nothing."""
    try:
        _keep_what_is_no_file(file)
        there = next(folder for folder in file.absolute().parents if folder.exists())
        tempfile.TemporaryFile(dir=there).close()
    except OSError as error:
        raise UserError(
            f"{option} {file}: cannot be written ({error.strerror}); choose another {option}"
        ) from None


def _keep_what_is_no_file(file: Path) -> None:
    """Raises ``OSError`` for a folder, a pipe or a device, in whose place a file would come."""
    if file.exists() and not file.is_file():
        raise FileExistsError(errno.EEXIST, "it is there already, and no plain file", str(file))


@contextmanager
def written_whole(file: Path) -> Iterator[Path]:
    """A name beside ``file`` to write under, which takes its place at the end: nobody finds half a file.

    Makes its folder. Raises ``OSError`` where something stands that is no plain file, which stays as it is.
    """
    _keep_what_is_no_file(file)
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f"{file.name}.part{os.getpid()}")
    try:
        yield partial
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)


def save_tensors(tensors: Mapping[str, Tensor], file: Path, about: dict[str, str] | None = None) -> None:
    """Writes a safetensors file that others may read as they may read any new file (the library alone lets nobody).

    Raises ``OSError`` where it cannot be written, as every other writing does.
    """
    try:
        save_file(dict(tensors), file, about)
    except SafetensorError as error:
        raise OSError(f"{file}: {error}") from None
    mask = os.umask(0)
    os.umask(mask)
    file.chmod(0o666 & ~mask)


class atomic_directory:
    """``with atomic_directory(path) as unfinished``: the directory appears under its name only when complete."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.unfinished = self.path.with_name(f".{self.path.name}.unfinished")

    def __enter__(self) -> Path:
        shutil.rmtree(self.unfinished, ignore_errors=True)
        self.unfinished.mkdir(parents=True)
        return self.unfinished

    def __exit__(self, kind: type | None, *_: object) -> None:
        if kind is not None:
            shutil.rmtree(self.unfinished, ignore_errors=True)
            return
        for part in self.unfinished.rglob("*"):  # a machine that vanishes must not leave empty files
            if part.is_file():
                with part.open("rb") as file:
                    os.fsync(file.fileno())
        replaced = self.path.with_name(f".{self.path.name}.replaced")
        shutil.rmtree(replaced, ignore_errors=True)
        if self.path.exists():
            os.replace(self.path, replaced)
        os.replace(self.unfinished, self.path)
        shutil.rmtree(replaced, ignore_errors=True)
