"""Lines of text from what people have: text files, data sets' folders, manifests; plain or gzipped."""

from __future__ import annotations

import csv
import gzip
import json
import sys
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from src.text_encoder.normalizer import normalize
from src.utils.errors import TextError, UserError
from src.utils.files import files_below
from src.utils.progress import progress_bar

TEXT_KEYS = ("text", "sentence", "transcript", "transcription")  # ours, Common Voice's, other people's


def text_files(path: str | Path) -> list[Path]:
    """The files that hold the transcripts of ``path``, sorted.

    A file is itself. A folder gives, whichever is there first: what lies below a ``transcriptions/`` (custom
    directories), ``*.trans.txt`` (LibriSpeech), or every ``.txt``, ``.gz``, ``.jsonl``, ``.json`` and ``.tsv``.
    Hidden files are left out. Raises ``UserError`` where there is nothing.
    """
    path = Path(path)
    if path.is_file():
        return [path]
    files = files_below(path, (".txt", ".gz", ".jsonl", ".json", ".tsv"))
    custom = [file for file in files if "transcriptions" in (path.name, *file.relative_to(path).parts[:-1])]
    found = custom or [file for file in files if file.name.endswith(".trans.txt")] or files
    if not found:
        raise UserError(f"{path}: no text here; give a .txt, .gz, .jsonl or .tsv file, or a folder with some")
    return found


def read_lines(file: str | Path) -> Iterator[str]:
    """The lines of one file as they are, without identifiers; its kind follows from its name.

    ``x.trans.txt``: ``ID text``. ``x.jsonl`` (or ``.json``): an object a line with ``text`` (or ``sentence`` ...).
    ``x.tsv``: the column of such a name where the first line has one, else the second column
    (``audio<TAB>transcript``). Anything else: a sentence a line. Any of these may end in ``.gz``.

    Raises ``TextError`` for a file that is missing, not UTF-8, damaged, or not what its name says.
    """
    file = Path(file)
    name = file.name.lower()
    unpacked = name.removesuffix(".gz")
    try:
        with (gzip.open if name != unpacked else open)(
            file, "rt", encoding="utf-8-sig", newline=None
        ) as lines:
            if unpacked.endswith(".trans.txt"):
                yield from (line.partition(" ")[2] for line in lines)
            elif unpacked.endswith((".jsonl", ".json")):
                yield from (_text_of(json.loads(line)) for line in lines if line.strip())
            elif unpacked.endswith(".tsv"):
                yield from _second_column(lines)
            else:
                yield from lines
    except UnicodeDecodeError:
        raise TextError(f"{file}: not UTF-8 text; convert it (iconv -t utf-8)") from None
    except (OSError, EOFError, zlib.error) as error:
        raise TextError(f"{file}: cannot be read ({error}); check or fetch it again") from None
    except (ValueError, KeyError, IndexError, csv.Error) as error:
        raise TextError(f"{file}: not a manifest with a text in each line ({error})") from None


def read_corpus(paths: Iterable[str | Path]) -> list[str]:
    """Normalised, non-empty lines of all files and folders; says which files cannot be read and are left out.

    Raises ``UserError`` where there are no such files, or none that can be read.
    """
    lines: list[str] = []
    skipped: list[TextError] = []
    files = [file for path in paths for file in text_files(path)]
    for file in progress_bar(files, desc="reading", unit="file"):
        try:
            lines += filter(None, [normalize(line) for line in read_lines(file)])
        except TextError as error:
            skipped.append(error)
    for error in skipped[:20]:
        print(f"skipped: {error}", file=sys.stderr)
    if skipped and not lines:
        raise UserError(f"none of {len(skipped)} files can be read; the first: {skipped[0]}")
    if skipped:
        print(f"note: {len(skipped)} files could not be read and were left out")
    return lines


def _text_of(record: dict) -> str:
    for key in TEXT_KEYS:
        if isinstance(record, dict) and isinstance(record.get(key), str):
            return record[key]
    raise ValueError(f"no {', '.join(TEXT_KEYS)} in {str(record)[:60]}")


def _second_column(lines: Iterator[str]) -> Iterator[str]:
    rows = csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
    column = 1
    for number, row in enumerate(rows):
        names = [cell.lower() for cell in row]
        titles = [names.index(key) for key in TEXT_KEYS if number == 0 and key in names]
        if titles:
            column = titles[0]
        elif row:
            yield row[column]
