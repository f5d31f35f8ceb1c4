"""A folder of transcripts, ``ID.txt`` each, that a killed run leaves whole and a later one goes on with."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from src.utils.errors import UserError

ORIGIN = ".origin"  # in the folder: id -> what its text was made from


class TranscriptFolder:
    """Texts by id, each written complete or not at all.

    Args:
        folder: made when it is not there.
        key: the setting that named it, for messages.

    Raises ``UserError`` when nothing can be written there.

    Example:
        >>> import tempfile
        >>> texts = TranscriptFolder(Path(tempfile.mkdtemp()))
        >>> texts.claim({"a/b": "1"}, resume=False)
        (['a/b'], {})
        >>> texts.write("a/b", "hello world")
        >>> texts.claim({"a/b": "1", "c": "2"}, resume=True)
        (['c'], {})
    """

    def __init__(self, folder: Path, key: str = "save_dir") -> None:
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
        except OSError as error:
            raise UserError(
                f"{key}={folder}: cannot be written to ({error.strerror}); choose another"
            ) from None

    def claim(self, stamps: dict[str, str], resume: bool) -> tuple[list[str], dict[str, str]]:
        """The ids that are to be transcribed, their earlier texts removed; and why others have no place here.

        With ``resume`` a text stays when it was made from the same thing, which a stamp stands for. The order
        (remove, note the origin, transcribe) lets a run be killed anywhere.
        """
        file = self.folder / ORIGIN
        old = self._read_origin(file)
        wanted, refused, stale = [], {}, 0
        for utterance_id, stamp in stamps.items():
            try:
                with _one_text():
                    there = self._file(utterance_id).is_file()
                if resume and there:
                    if old.get(utterance_id) == stamp:
                        continue
                    stale += 1
                self.remove(utterance_id)
                wanted.append(utterance_id)
            except UserError as error:
                refused[utterance_id] = str(error)
        if stale:
            print(
                f"{stale} texts in {self.folder} are of another checkpoint or search, or of other recordings; "
                "transcribing them again"
            )
        try:
            _write(file, json.dumps(old | stamps))
        except OSError as error:
            raise UserError(
                f"{file}: cannot be written ({error.strerror}); choose another save_dir"
            ) from None
        return wanted, refused

    def write(self, utterance_id: str, text: str) -> None:
        """Raises ``UserError`` when ``ID.txt`` cannot be written."""
        file = self._file(utterance_id)
        with _one_text():
            _write(file, text)

    def remove(self, utterance_id: str) -> None:
        """Raises ``UserError`` when what is there cannot be removed."""
        file = self._file(utterance_id)
        with _one_text():
            file.unlink(missing_ok=True)

    def _file(self, utterance_id: str) -> Path:
        """Where a text belongs. Raises ``UserError`` for a name that no file can have or that leads elsewhere."""
        with _one_text():
            file = self.folder / f"{utterance_id}.txt"
            if not file.parent.resolve().is_relative_to(self.folder.resolve()):
                raise ValueError(f"{file} is not below {self.folder}")
            return file

    @staticmethod
    def _read_origin(file: Path) -> dict[str, str]:
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError):  # none yet, or damaged: nothing is known of the texts
            return {}
        return content if isinstance(content, dict) else {}


@contextmanager
def _one_text() -> Iterator[None]:
    """What keeps one text from being written or removed is no reason to stop: one line that names it."""
    try:
        yield
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"its text cannot be written ({reason}); rename it or clear its place") from None


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_name(f".{os.getpid()}.unfinished")  # short, whatever the id's length
    unfinished.write_text(text + "\n", encoding="utf-8")
    os.replace(unfinished, file)
