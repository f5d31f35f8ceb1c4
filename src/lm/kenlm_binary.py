"""KenLM's binary files, read and scored without KenLM: those of probing hash tables, its default."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from src.lm.arpa import KENLM_BINARY
from src.lm.kneser_ney import BEGIN, SPECIAL, UNKNOWN
from src.lm.ngram import NGramLM, sentence_score
from src.utils.errors import UserError

MAGIC, VERSION = KENLM_BINARY + b" format version ", b"5\n\0\0"
# Magic (up to a multiple of 8), three floats and three numbers that tell byte orders apart, and a fourth.
HEADER = (len(MAGIC + VERSION) + 7) // 8 * 8 + struct.calcsize("<3f3IQ")
SETTINGS = struct.Struct("<B3xfI?3xI")  # order, buckets an entry, kind, whether the words are there, version
KINDS = ("probing", "rest probing", "trie", "quantised trie", "array trie", "quantised array trie")
UNIGRAM = np.dtype([("log_prob", "<f4"), ("backoff", "<f4")])
MIDDLE = np.dtype([("key", "<u8"), ("log_prob", "<f4"), ("backoff", "<f4")])
LONGEST = np.dtype([("key", "<u8"), ("log_prob", "<f4")])
VOCABULARY_ENTRY = 12  # bytes
# Of the hash that names an n-gram, word by word from the last one backwards, modulo 2^64.
FACTOR_OF_HASH = 8978948897894561157
FACTOR_OF_WORD = 17894857484156487943 - 2**64


class _Table(NamedTuple):
    """The n-grams of one order, by ascending hash."""

    keys: Tensor
    log_prob: Tensor
    backoff: Tensor


class KenLMBinary:
    """P(word | words before) as ``NGramLM`` gives it, from a file of KenLM's ``build_binary``.

    Such a file knows n-grams by a 64-bit hash of their words only. They cannot be listed, but asked for: a context is
    here its last N - 1 words, packed into one number.

    Args:
        file: a binary of the type ``probing`` that holds its words, as ``build_binary model.arpa model.bin`` makes it.

    Attributes: ``words`` (by id; the marks first), ``order``, ``unigrams`` [V] log10 P(word).

    Raises ``UserError`` for a file of another type, one that is cut short, or one of more words than a context of that
    order can hold.
    """

    def __init__(self, file: str | Path) -> None:
        try:
            content = np.memmap(file, np.uint8, "r")
        except (OSError, ValueError) as error:
            raise UserError(f"{file}: no language model can be read from it ({error})") from None
        damaged = UserError(f"{file}: a KenLM binary that is cut short or damaged; build it again")
        if content[: len(MAGIC)].tobytes() != MAGIC or len(content) < HEADER + SETTINGS.size:
            raise damaged
        if content[len(MAGIC) : len(MAGIC) + len(VERSION)].tobytes() != VERSION:
            raise UserError(f"{file}: of another version of KenLM; build it again, or give the ARPA file")
        order, multiplier, kind, has_words, _ = SETTINGS.unpack(content[HEADER : HEADER + SETTINGS.size])
        if kind != 0:
            name = KINDS[kind] if kind < len(KINDS) else "unknown"
            raise UserError(
                f"{file}: a KenLM binary of the type '{name}'; build it as 'probing', or give the ARPA file"
            )
        if not has_words:
            raise UserError(f"{file}: was built without its words; build it again, or give the ARPA file")
        at = HEADER + SETTINGS.size
        if order < 2 or len(content) < at + 8 * order or not 1 <= multiplier < 100:
            raise damaged
        counts = np.frombuffer(content[at : at + 8 * order].tobytes(), "<u8").tolist()
        if max(counts) > len(content):
            raise damaged

        def buckets(entries: int) -> int:
            return max(entries + 1, int(np.float32(multiplier) * np.float32(entries)))

        def taken(kind: np.dtype, count: int) -> np.ndarray:
            nonlocal at
            at += count * kind.itemsize
            if at > len(content):
                raise damaged
            return np.frombuffer(content[at - count * kind.itemsize : at].tobytes(), kind)

        at = (at + 8 * order + 7) // 8 * 8 + 8 + VOCABULARY_ENTRY * buckets(counts[0])
        unigrams = taken(UNIGRAM, counts[0] + 1)  # one more, should the ARPA file have had no <unk>
        tables = [
            taken(MIDDLE if n < order else LONGEST, buckets(c)) for n, c in enumerate(counts[1:], start=2)
        ]
        try:
            spelled = content[at:].tobytes().decode().split("\0")[:-1]
        except UnicodeDecodeError:
            raise damaged from None
        unigrams = unigrams[: len(spelled)]
        if (
            not 0 <= len(spelled) - counts[0] <= 1
            or spelled[0] != SPECIAL[UNKNOWN]
            or not {*SPECIAL} <= {*spelled}
        ):
            raise damaged

        self.order = order
        self.words = [*SPECIAL, *(word for word in spelled if word not in SPECIAL)]
        places = {word: place for place, word in enumerate(spelled)}
        self.number = torch.tensor([places[word] for word in self.words])  # KenLM's, by id
        self.bits = 63 // (order - 1)  # of a word in a packed context
        self.none = (1 << self.bits) - 1
        if len(spelled) >= self.none:
            raise UserError(f"{file}: has too many words for its order of {order}; give the ARPA file")
        # A sign of its own marks what KenLM may leave out of its states.
        one = _Table(torch.arange(len(spelled)), _minus(unigrams["log_prob"]), _floats(unigrams["backoff"]))
        self.tables = [one, *map(_sorted, tables)]
        if not all(
            part.isfinite().all() for table in self.tables for part in (table.log_prob, table.backoff)
        ):
            raise damaged

    @property
    def unigrams(self) -> Tensor:
        return self.tables[0].log_prob[self.number]

    @property
    def begin(self) -> int:
        """The context of a sentence's begin."""
        return int(self._packed([self.number[BEGIN]]))

    def to(self, device: torch.device | str) -> KenLMBinary:
        """Moves its tensors."""
        self.number = self.number.to(device)
        self.tables = [_Table(*(part.to(device) for part in table)) for table in self.tables]
        return self

    def advance(self, contexts: Tensor, words: Tensor) -> tuple[Tensor, Tensor]:
        """Contexts and next words (ids), any shape -> log10 P(word | context) and the contexts after the words."""
        word = self.number[words]
        before = [contexts >> (self.bits * place) & self.none for place in range(self.order - 1)]
        chances, _ = self._along([word, *before])
        _, backoffs = self._along(before)
        # The longest n-gram that is there, and the back-off weights of the contexts that it leaves out.
        length = chances.isfinite().byte().cumprod(0).sum(0)
        log_prob = chances.gather(0, length.unsqueeze(0) - 1).squeeze(0)
        places = torch.arange(1, self.order, device=words.device).view(-1, *(1,) * words.dim())
        skipped = (backoffs * (places >= length)).sum(0)
        return log_prob + skipped, self._packed([word, *before[:-1]])

    def advance_unknown(self, contexts: Tensor) -> tuple[Tensor, Tensor]:
        """``advance`` by an unknown word."""
        return self.advance(contexts, torch.full_like(contexts, UNKNOWN))

    def score(self, sentence: str) -> float:
        """log10 P of a sentence with its begin and end; unknown words count as ``<unk>``."""
        return sentence_score(self, {word: number for number, word in enumerate(self.words)}, sentence)

    def _along(self, words: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Words from the last one backwards -> log10 P (minus infinity: not there) and back-off weight (then 0) of
        the n-grams that the first 1, 2, ... of them make, [n, ...] each."""
        key, there = words[0], torch.ones_like(words[0], dtype=torch.bool)
        chances, backoffs = [], []
        for length, (word, table) in enumerate(zip(words, self.tables, strict=False)):
            if length:
                key = (key * FACTOR_OF_HASH) ^ ((1 + word) * FACTOR_OF_WORD)
            at = torch.searchsorted(table.keys, key).clamp_(max=len(table.keys) - 1)
            there = there & (table.keys[at] == key) & (word != self.none)
            chances.append(table.log_prob[at].double().masked_fill(~there, -torch.inf))
            backoffs.append(table.backoff[at].double().masked_fill(~there, 0.0))
        return torch.stack(chances), torch.stack(backoffs)

    def _packed(self, words: list[Tensor]) -> Tensor:
        """The last words of a context, the last one first, as one number; missing ones are ``none``."""
        return sum(
            (words[place] if place < len(words) else self.none) << (self.bits * place)
            for place in range(self.order - 1)
        )


def open_word_lm(file: str | Path) -> NGramLM | KenLMBinary:
    """Any n-gram model that can be asked for one word after another. Raises ``UserError`` as its class does."""
    try:
        with Path(file).open("rb") as stream:
            is_kenlm = stream.read(len(KENLM_BINARY)) == KENLM_BINARY
    except OSError:
        is_kenlm = False
    return KenLMBinary(file) if is_kenlm else NGramLM.open(file)


def _floats(values: np.ndarray) -> Tensor:
    return torch.from_numpy(values.astype(np.float32))


def _minus(values: np.ndarray) -> Tensor:
    return -_floats(values).abs()


def _sorted(table: np.ndarray) -> _Table:
    """A hash table's entries by ascending key."""
    table = table[table["key"] != 0]
    keys = table["key"].astype(np.int64)
    order = np.argsort(keys)
    backoff = table["backoff"] if "backoff" in table.dtype.names else np.zeros(len(table))
    return _Table(torch.from_numpy(keys[order]), _minus(table["log_prob"][order]), _floats(backoff[order]))
