"""ARPA files: the text form of n-gram models that every toolkit reads and writes, plain or gzipped."""

from __future__ import annotations

import codecs
import gzip
import io
import re
import zlib
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from src.utils.errors import UserError
from src.utils.files import written_whole

BLOCK = 1 << 18  # n-grams written at a time
KENLM_BINARY = b"mmap lm http://kheafield.com/code"


class Table:
    """All n-grams of one order as a file has them: words [M, n] (ids), log_prob and backoff [M] (base 10)."""

    def __init__(self, words: np.ndarray, log_prob: np.ndarray, backoff: np.ndarray) -> None:
        self.words, self.log_prob, self.backoff = words, log_prob, backoff


def read_arpa(file: str | Path) -> tuple[list[str], list[Table]]:
    """The vocabulary in the file's order, and a table per order.

    Raises ``UserError`` naming what is wrong: no such file, not ARPA, cut short, counts that differ from what is
    announced, a line that cannot be read, words that are no unigrams.
    """
    text = _bytes_of(Path(file))
    counts, sections = _sections(file, text)
    vocabulary: list[str] = []
    tables = []
    for order, (announced, section) in enumerate(zip(counts, sections, strict=True), start=1):
        log_prob, ngrams, backoff = _columns(file, order, section, has_backoff=order < len(counts))
        if len(log_prob) != announced:
            raise UserError(
                f"{file}: announces {announced} {order}-grams but has {len(log_prob)}; it is damaged, get it again"
            )
        if order == 1:
            vocabulary = ngrams.to_pylist()
            known = ngrams
        words = pc.split_pattern(ngrams, " ")
        sizes = pc.list_value_length(words)
        if len(sizes) and (pc.min(sizes).as_py(), pc.max(sizes).as_py()) != (order, order):
            wrong = ngrams[pc.index(pc.not_equal(sizes, order), True).as_py()]
            raise UserError(f"{file}: '{wrong}' stands among the {order}-grams; it is damaged, get it again")
        ids = pc.index_in(words.flatten(), value_set=known)
        if ids.null_count:
            word = words.flatten()[pc.index(pc.is_null(ids), True).as_py()]
            raise UserError(f"{file}: '{word}' of a {order}-gram is no 1-gram; it is damaged, get it again")
        tables.append(Table(ids.to_numpy().reshape(-1, order), log_prob, backoff))
    return vocabulary, tables


def write_arpa(file: str | Path, vocabulary: list[str], tables: list[Table]) -> None:
    """Writes a table per order; gzipped where the name ends in .gz. Back-off weights of 0 are written too."""
    with ExitStack() as stack:
        partial = stack.enter_context(written_whole(Path(file)))
        zipped = str(file).endswith(".gz")
        stream = stack.enter_context(gzip.open(partial, "wb", 1) if zipped else partial.open("wb"))
        head = [f"ngram {order}={len(table.words)}" for order, table in enumerate(tables, start=1)]
        stream.write(("\\data\\\n" + "\n".join(head) + "\n").encode())
        words = pa.array(vocabulary)
        for order, table in enumerate(tables, start=1):
            stream.write(f"\n\\{order}-grams:\n".encode())
            for start in range(0, len(table.words), BLOCK):
                block = slice(start, start + BLOCK)
                columns = [words.take(pa.array(column)) for column in table.words[block].T]
                fields = [_numbers(table.log_prob[block]), pc.binary_join_element_wise(*columns, " ")]
                fields += [_numbers(table.backoff[block])] if order < len(tables) else []
                lines = pc.binary_join_element_wise(*fields, "\t").to_pylist()
                stream.write(("\n".join(lines) + "\n").encode())
        stream.write(b"\n\\end\\\n")


def _numbers(values: np.ndarray) -> pa.Array:
    return pa.array(values, pa.float32()).cast(pa.string())


def _bytes_of(file: Path) -> bytes:
    try:
        content = file.read_bytes()
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
    except FileNotFoundError:
        raise UserError(f"{file}: there is no such language model") from None
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{file}: cannot be read ({error}); get it again") from None
    content = content.removeprefix(codecs.BOM_UTF8)
    if content.startswith(KENLM_BINARY):
        raise UserError(
            f"{file}: a KenLM binary, which serves as a model of words only; give the ARPA file here"
        )
    return content


def _sections(file: str | Path, text: bytes) -> tuple[list[int], list[bytes]]:
    """How many n-grams of each order are announced, and the lines of each."""
    head = re.search(
        rb"^\\data\\[ \t\r]*\n((?:[ \t\r]*\n|ngram[ \t]+\d+[ \t]*=[ \t]*\d+[ \t\r]*\n)+)", text, re.M
    )
    if head is None:
        raise UserError(
            f"{file}: has no \\data\\ part with counts, so it is no ARPA file; give one (.arpa, .arpa.gz)"
        )
    counts = [int(count) for count in re.findall(rb"ngram[ \t]+\d+[ \t]*=[ \t]*(\d+)", head.group(1))]
    marks = list(re.finditer(rb"^\\(\d+-grams:|end\\)[ \t\r]*\n?", text[head.end() :], re.M))
    names = [mark.group(1).decode() for mark in marks]
    expected = [f"{order}-grams:" for order in range(1, len(counts) + 1)] + ["end\\"]
    if names != expected:
        missing = next(
            (f"\\{name}" for name in expected if name not in names), "the right order of its parts"
        )
        raise UserError(f"{file}: {missing} is missing, so it was cut short or damaged; get it again")
    start = head.end()
    return counts, [
        text[start + mark.end() : start + after.start()]
        for mark, after in zip(marks, marks[1:], strict=False)
    ]


def _columns(
    file: str | Path, order: int, section: bytes, has_backoff: bool
) -> tuple[np.ndarray, pa.Array, np.ndarray]:
    """log_prob, n-grams and backoff of a section; weights that are left out are 0."""
    section = section.replace(b"\r", b"").strip(b"\n") + b"\n"
    if not section.strip():
        return np.zeros(0), pa.array([], pa.large_string()), np.zeros(0)
    names = ["log_prob", "ngram", "backoff"]
    if section.count(b"\t") != 2 * section.count(b"\n"):
        section = re.sub(rb"^([^\t\n]*\t[^\t\n]*)$", rb"\1\t0", section, flags=re.M)
    types = {"log_prob": pa.float64(), "ngram": pa.large_string(), "backoff": pa.float64()}
    try:
        table = csv.read_csv(
            io.BytesIO(section),
            csv.ReadOptions(column_names=names, block_size=1 << 26),
            csv.ParseOptions(delimiter="\t", quote_char=False),
            csv.ConvertOptions(column_types=types, strings_can_be_null=False),
        ).combine_chunks()
    except (pa.ArrowInvalid, pa.ArrowKeyError) as error:
        first = section.partition(b"\n")[0].decode(errors="replace")[:60]
        if "\t" not in first:
            raise UserError(
                f"{file}: no tabs part the columns of its {order}-grams ('{first}'); write it with tabs, as ARPA has it"
            ) from None
        detail = str(error).splitlines()[0]
        raise UserError(
            f"{file}: a line of the {order}-grams cannot be read ({detail}); get it again"
        ) from None
    columns = [table.column(name).combine_chunks() for name in names]
    if columns[0].null_count or columns[2].null_count:
        raise UserError(
            f"{file}: a {order}-gram has no number where one is needed; it is damaged, get it again"
        )
    log_prob, backoff = columns[0].to_numpy(), columns[2].to_numpy()
    if len(log_prob) and (not log_prob.max() <= 0 or not np.isfinite(backoff).all()):
        raise UserError(
            f"{file}: a {order}-gram has a log probability above 0 or a back-off weight that is not finite; it is "
            f"damaged, get it again"
        )
    return log_prob, columns[1], backoff if has_backoff else np.zeros(len(table))
