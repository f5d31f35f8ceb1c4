"""Interpolated modified Kneser-Ney estimation (Chen and Goodman, 1998), with arrays that are sorted, not dictionaries.

The most probable continuation of a context is the highest order's count, discounted; the mass that discounting frees
goes to the next lower order, whose counts are of distinct words on the left ("San Francisco" makes Francisco no
likely word elsewhere). The estimate is what KenLM's lmplz gives (Heafield et al., 2013): sentences are padded with
begin marks, n-grams at a sentence's begin keep their plain counts, and unigrams are interpolated with a uniform
distribution over the vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

SPECIAL = ("<unk>", "<s>", "</s>")
UNKNOWN, BEGIN, END = 0, 1, 2  # their ids
BLOCK = 1 << 24  # letters
LARGEST_CODE = 2**62


@dataclass
class Level:
    """All n-grams of one order, sorted by (node of the first n - 1 words, last word)."""

    words: np.ndarray  # [M, n] int32
    parent: np.ndarray  # [M] index of the first n - 1 words in the level below (0 for n = 1)
    suffix: np.ndarray  # [M] index of the last n - 1 words in the level below (0 for n = 1)
    raw: np.ndarray  # [M] how often it occurs
    count: np.ndarray  # [M] its adjusted count

    @property
    def order(self) -> int:
        return self.words.shape[1]


def numbered(lines: Iterable[str]) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Lines of words -> the vocabulary by id, all words' ids one after the other, and how many each line has.

    >>> numbered(["a b", "", "b <s>"])[1:]
    (array([3, 4, 4, 0], dtype=int32), array([2, 0, 2]))
    """
    vocabulary = {word: number for number, word in enumerate(SPECIAL)}
    ids, lengths = [np.zeros(0, np.int32)], [np.zeros(0, np.int64)]
    for block in _blocks(lines):
        split = pc.utf8_split_whitespace(pa.array(block, pa.large_string()))
        flat, line_of = split.flatten(), pc.list_parent_indices(split).to_numpy()
        is_word = pc.not_equal(flat, "").to_numpy(zero_copy_only=False)  # none around spaces at a line's ends
        found = flat.dictionary_encode()
        words = found.dictionary.to_pylist()
        known = [vocabulary.setdefault(word, len(vocabulary)) if word else UNKNOWN for word in words]
        ids.append(np.array(known, np.int32)[found.indices.to_numpy()[is_word]])
        lengths.append(np.bincount(line_of[is_word], minlength=len(block)))
    sentences = np.concatenate(ids)
    sentences[sentences < len(SPECIAL)] = UNKNOWN  # words that are written like the marks
    return list(vocabulary), sentences, np.concatenate(lengths)


def _blocks(lines: Iterable[str]) -> Iterator[list[str]]:
    """The lines in lists of some megabytes."""
    block: list[str] = []
    letters = 0
    for line in lines:
        block.append(line)
        letters += len(line)
        if letters > BLOCK:
            yield block
            block, letters = [], 0
    if block:
        yield block


def padded(sentences: np.ndarray, lengths: np.ndarray, order: int) -> tuple[np.ndarray, np.ndarray]:
    """sentences [sum of lengths] of word ids, one after the other -> the same line with marks, and where n-grams end.

    Every sentence gets order - 1 begin marks (one for order 1) and an end mark; begin marks end no n-gram.

    >>> line, ends = padded(np.array([5, 6]), np.array([2]), order=3)
    >>> line.tolist(), ends.tolist()
    ([1, 1, 5, 6, 2], [2, 3, 4])
    """
    pad = max(1, order - 1)
    starts = np.concatenate([[0], np.cumsum(lengths + pad + 1)])
    line = np.full(starts[-1], BEGIN, np.int32)
    inside = np.ones(len(line), bool)
    for mark in range(pad):
        inside[starts[:-1] + mark] = False
    ends = np.flatnonzero(inside)
    line[starts[1:] - 1] = END
    inside[starts[1:] - 1] = False
    line[inside] = sentences
    return line, ends


def distinct_ngrams(
    line: np.ndarray, ends: np.ndarray, order: int, vocab_size: int
) -> tuple[np.ndarray, np.ndarray]:
    """The n-grams that end at ``ends``, each once, sorted [M, order], and how often each is there [M].

    >>> distinct_ngrams(np.array([1, 5, 5, 5, 2]), np.array([1, 2, 3, 4]), 2, 10)[0].tolist()
    [[1, 5], [5, 2], [5, 5]]
    """
    columns = (line[ends - back] for back in reversed(range(order)))
    if vocab_size**order >= LARGEST_CODE:
        rows = np.stack(list(columns), axis=1)
        first, counts = np.unique(row_codes(rows, vocab_size), return_index=True, return_counts=True)[1:]
        return rows[first], counts
    code = np.zeros(len(ends), np.int64)
    for column in columns:
        code *= vocab_size
        code += column
    code, counts = np.unique(code, return_counts=True)
    rows = np.empty((len(code), order), np.int32)
    for position in reversed(range(order)):
        code, rows[:, position] = np.divmod(code, vocab_size)
    return rows, counts


def row_codes(rows: np.ndarray, vocab_size: int) -> np.ndarray:
    """rows [M, n] of ids below vocab_size -> [M] int64 in the rows' lexicographic order, equal where they are equal."""
    code, span = rows[:, 0].astype(np.int64), vocab_size
    for column in range(1, rows.shape[1]):
        if span * vocab_size >= LARGEST_CODE:
            distinct, code = np.unique(code, return_inverse=True)
            span = len(distinct)
        code = code * vocab_size + rows[:, column]
        span *= vocab_size
    return code


def count_levels(rows: np.ndarray, raw: np.ndarray, vocab_size: int) -> list[Level]:
    """N-grams and counts of ``distinct_ngrams`` -> levels of order 1 to N; the first has every word, in its order.

    An n-gram below the highest order counts the distinct words on its left, unless it begins the sentence.
    """
    count = raw
    tables = []  # of the highest order first: rows with those that only pad, sorted
    for order in range(rows.shape[1], 0, -1):
        only_pads = (rows[:, 0] == BEGIN) & (rows[:, min(1, order - 1)] == BEGIN) & (order > 1)
        table = {"words": rows[~only_pads], "raw": raw[~only_pads], "count": count[~only_pads]}
        tables.append(table)
        if order == 1:
            break
        shorter = rows[:, 1:]
        _, first, suffix = np.unique(row_codes(shorter, vocab_size), return_index=True, return_inverse=True)
        table["suffix"] = suffix[~only_pads]  # among all rows of the level below
        rows = shorter[first]
        raw = np.bincount(suffix, weights=raw).astype(np.int64)
        count = np.where(rows[:, 0] == BEGIN, raw, np.bincount(suffix))
        if order > 2:  # pads are left out of the level below
            stays = ~((rows[:, 0] == BEGIN) & (rows[:, 1] == BEGIN))
            table["suffix"] = (np.cumsum(stays) - 1)[table["suffix"]]
    levels = [_all_words(tables.pop(), vocab_size)]
    if tables:
        tables[-1]["suffix"] = tables[-1]["words"][:, 1]
    while tables:
        table, below = tables.pop(), levels[-1]
        words = table["words"]
        starts = np.ones(len(words), bool)
        starts[1:] = (words[1:, :-1] != words[:-1, :-1]).any(1)
        # Everything but an end mark goes on somewhere, so that groups of equal beginnings are all of these, in order.
        begins = np.flatnonzero((below.words[:, -1] != END) & (below.raw > 0))
        parent = begins[np.cumsum(starts) - 1]
        levels.append(Level(words, parent, table["suffix"], table["raw"], table["count"]))
    return levels


def _all_words(table: dict[str, np.ndarray], vocab_size: int) -> Level:
    """The unigrams of a table and, with a count of 0, all other words; begin marks are predicted by nothing."""
    ids = table["words"][:, 0]
    raw, count = np.zeros((2, vocab_size), np.int64)
    raw[ids], count[ids] = table["raw"], table["count"]
    raw[BEGIN], count[BEGIN] = 1, 0
    nothing = np.zeros(vocab_size, np.int64)
    return Level(np.arange(vocab_size, dtype=np.int32)[:, None], nothing, nothing, raw, count)


def discounts(count: np.ndarray) -> np.ndarray:
    """Adjusted counts of an order -> what counts of 0, 1, 2 and 3 or more are lowered by (Chen and Goodman, eq. 26).

    Where the text is too small for that (no n-gram of some count): 0.5, 1 and 1.5, as lmplz falls back to.
    """
    t = np.bincount(np.minimum(count, 5), minlength=5)[:5].astype(float)
    if (t[1:] > 0).all():
        y = t[1] / (t[1] + 2 * t[2])
        found = [0.0] + [k - (k + 1) * y * t[k + 1] / t[k] for k in (1, 2, 3)]
        if all(0 <= d <= k for k, d in enumerate(found)):
            return np.array(found)
    return np.array([0.0, 0.5, 1.0, 1.5])


def estimate(
    levels: list[Level], prune: list[int]
) -> tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]]:
    """Per order: which n-grams are kept [M] bool, and of all of them probability and back-off weight [M] float64.

    ``prune``: per order, n-grams that occur at most so often are left out (0: none); their mass backs off.
    """
    kept, probabilities, backoffs = [], [], []
    for level in levels:
        order = level.order
        amounts = discounts(level.count)[np.minimum(level.count, 3)]
        contexts = 1 if order == 1 else len(levels[order - 2].count)
        stays = np.ones(len(level.raw), bool) if order == 1 else level.raw > prune[order - 1]
        total = np.bincount(level.parent, weights=level.count, minlength=contexts)
        freed = np.where(stays, amounts, level.count)
        freed = np.bincount(level.parent, weights=freed, minlength=contexts)
        with np.errstate(invalid="ignore", divide="ignore"):
            backoff = np.where(total > 0, freed / total, 1.0)
            own = (level.count - amounts) / total[level.parent]
        if order == 1:
            lower = np.full(len(own), 1 / (len(own) - 1))
        else:
            lower = probabilities[-1][level.suffix]
            backoffs.append(backoff)
        probability = own + backoff[level.parent] * lower
        if order == 1:
            probability[BEGIN] = 0.0
        kept.append(stays)
        probabilities.append(probability)
    backoffs.append(np.ones(len(levels[-1].count)))
    return kept, probabilities, backoffs
