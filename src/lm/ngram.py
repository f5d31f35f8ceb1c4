"""A back-off n-gram language model as one sorted table, scored for whole beams at once."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from src.lm.arpa import Table, read_arpa, write_arpa
from src.lm.kneser_ney import (
    BEGIN,
    END,
    SPECIAL,
    UNKNOWN,
    Level,
    count_levels,
    distinct_ngrams,
    estimate,
    numbered,
    padded,
)
from src.lm.trie import Trie, is_trie
from src.utils.errors import UserError
from src.utils.files import save_tensors, written_whole

HIGHEST_ORDER = 6
LOG10_ZERO = -99.0  # ARPA's way to write the logarithm of 0
LEAST_READ = -100.0  # what KenLM gives an unknown word that a file does not mention; less is no use in sums
FORMAT = "lectern n-gram 1"
LN_10 = math.log(10)  # of the scorers, which speak in natural logarithms
LM_EXPECTED = "the path of a language model, such as data/lm/words.safetensors"


@dataclass
class NGramLM:
    """P(word | words before) as a trie of n-grams, in which each node is a context.

    Node 0 is the empty context; the nodes after it are the n-grams of order 1, 2, ..., sorted by (node of all words
    but the last, last word), so that one binary search in ``keys`` finds a child of any node. Where a node has no
    such child, the model backs off: it adds the node's ``backoff`` and asks its ``suffix``, the node without its
    first word. Logarithms are of base 10, as in ARPA files.

    Attributes:
        words: the vocabulary by id; ``<unk>``, ``<s>`` and ``</s>`` are the first three.
        keys: [M] parent node * V + word of nodes 1..M, ascending.
        log_prob, backoff: [M + 1] float32.
        suffix: [M + 1] int64.
        starts: first node of each order, and M + 1.

    Example:
        >>> lm = NGramLM.estimate(["the cat sat", "the cat ran", "a dog sat"], order=2)
        >>> lm.score("the cat sat") > lm.score("sat cat the")
        True
    """

    words: list[str]
    keys: Tensor
    log_prob: Tensor
    backoff: Tensor
    suffix: Tensor
    starts: list[int]

    @property
    def order(self) -> int:
        return len(self.starts) - 1

    @property
    def unigrams(self) -> Tensor:
        """[V] log10 P(word), without a context."""
        return self.log_prob[1 : 1 + len(self.words)]

    @cached_property
    def ids(self) -> dict[str, int]:
        return {word: number for number, word in enumerate(self.words)}

    @cached_property
    def context(self) -> Tensor:
        """[M + 1] what is left of a node as a context: itself, of the highest order without its first word."""
        nodes = torch.arange(len(self.suffix), device=self.suffix.device)
        return torch.where(nodes >= self.starts[-2], self.suffix, nodes)

    @cached_property
    def backoff_to_empty(self) -> Tensor:
        """[M + 1] sum of the back-off weights of a context and of all shorter ones."""
        total = self.backoff.double()
        for first, end in pairwise(self.starts):  # shorter contexts first
            total[first:end] += total[self.suffix[first:end]]
        return total

    @cached_property
    def unknown(self) -> tuple[Tensor, Tensor]:
        """For each context [M + 1] what ``advance`` gives for an unknown word after it: log10 P, and the node after."""
        points, after = self.log_prob.double(), torch.zeros_like(self.suffix)
        points[0] = self.log_prob[1 + UNKNOWN]
        after[0] = self.context[1 + UNKNOWN]
        parent, word = self.keys // len(self.words), self.keys % len(self.words)
        # The n-grams that end in it, each its parent's child.
        own = 1 + (word == UNKNOWN).nonzero().squeeze(1)
        for first, end in pairwise(self.starts):  # shorter contexts first
            points[first:end] = self.backoff[first:end] + points[self.suffix[first:end]]
            after[first:end] = after[self.suffix[first:end]]
            children = own[(parent[own - 1] >= first) & (parent[own - 1] < end)]
            points[parent[children - 1]] = self.log_prob[children].double()
            after[parent[children - 1]] = self.context[children]
        return points, after

    @classmethod
    def estimate(cls, lines: Iterable[str], order: int = 3, prune: list[int] | None = None) -> NGramLM:
        """Interpolated modified Kneser-Ney over lines of words separated by white space.

        Args:
            lines: sentences, read once; words that are written like the marks of ARPA files count as unknown.
            order: N, 1 to 6.
            prune: for each order, n-grams seen at most so often are left out; never falling, 0 for order 1.

        Raises ``UserError`` for an order or thresholds that do not fit, or for no words at all.
        """
        if isinstance(order, bool) or not isinstance(order, int) or not 1 <= order <= HIGHEST_ORDER:
            raise UserError(f"order={order} must be a whole number from 1 to {HIGHEST_ORDER}")
        prune = list(prune or [0] * order)
        if len(prune) != order or prune[0] != 0 or sorted(prune) != prune:
            raise UserError(f"prune={prune} must be {order} whole numbers that never fall, the first one 0")
        words, sentences, lengths = numbered(lines)
        if not len(sentences):
            raise UserError("the text has no words to estimate a language model from")
        rows, counts = distinct_ngrams(*padded(sentences, lengths, order), order, len(words))
        levels = count_levels(rows, counts, len(words))
        return cls._from_levels(words, levels, prune)

    @classmethod
    def _from_levels(cls, words: list[str], levels: list[Level], prune: list[int]) -> NGramLM:
        kept, probabilities, backoffs = estimate(levels, prune)
        V = len(words)
        keys, log_prob, backoff, suffix, starts = [], [np.zeros(1)], [np.zeros(1)], [np.zeros(1, int)], [1]
        node_below = np.zeros(1, np.int64)  # of each n-gram one order lower
        for level, stays, p, b in zip(levels, kept, probabilities, backoffs, strict=True):
            below = np.zeros_like(level.parent) if level.order == 1 else level.parent
            keys.append(node_below[below[stays]] * V + level.words[stays, -1])
            suffix.append(node_below[level.suffix[stays]])
            with np.errstate(divide="ignore"):
                log_prob.append(np.log10(p[stays]).clip(LOG10_ZERO, 0))  # a sum of 1 may be rounded up
                backoff.append(np.maximum(np.log10(b[stays]), LOG10_ZERO))
            node_below = starts[-1] + np.cumsum(stays) - 1
            starts.append(starts[-1] + int(stays.sum()))
        return cls(
            words,
            torch.from_numpy(np.concatenate(keys)),
            torch.from_numpy(np.concatenate(log_prob)).float(),
            torch.from_numpy(np.concatenate(backoff)).float(),
            torch.from_numpy(np.concatenate(suffix)),
            starts,
        )

    @classmethod
    def from_arpa(cls, file: str | Path) -> NGramLM:
        """Reads an ARPA file, plain or gzipped, of any program. Raises ``UserError`` for what ``read_arpa`` names."""
        vocabulary, tables = read_arpa(file)
        if SPECIAL[0] not in vocabulary:
            # As SRILM may write it.
            vocabulary = [SPECIAL[0] if word == "<UNK>" else word for word in vocabulary]
        for mark in SPECIAL[1:]:
            if mark not in vocabulary:
                raise UserError(f"{file}: has no {mark} among its 1-grams; estimate it with sentence marks")
        if SPECIAL[0] not in vocabulary:  # as KenLM takes it
            vocabulary.append(SPECIAL[0])
            unknown = Table(np.array([[len(vocabulary) - 1]]), np.array([LEAST_READ]), np.zeros(1))
            tables[0] = Table(
                *(np.concatenate([vars(tables[0])[k], vars(unknown)[k]]) for k in vars(unknown))
            )
        places = {word: place for place, word in enumerate(vocabulary)}
        if len(places) != len(vocabulary):
            raise UserError(f"{file}: a word stands twice among the 1-grams; it is damaged, get it again")
        words = [*SPECIAL, *(word for word in vocabulary if word not in SPECIAL)]
        new_id = np.empty(len(words), np.int64)
        new_id[[places[word] for word in words]] = np.arange(len(words))
        trie = Trie(file, words)
        for table in tables:
            trie.add(Table(new_id[table.words], table.log_prob.clip(min=LEAST_READ), table.backoff))
        floats = [torch.from_numpy(values).float() for values in (trie.log_prob, trie.backoff)]
        return cls(words, torch.from_numpy(trie.keys), *floats, torch.from_numpy(trie.suffix), trie.starts)

    @classmethod
    def open(cls, file: str | Path) -> NGramLM:
        """Reads the binary form or an ARPA file, whichever it is. Raises ``UserError`` as these do."""
        try:
            with Path(file).open("rb") as stream:
                is_binary = stream.read(9)[8:] == b"{"  # safetensors: a length of 8 bytes, then JSON
        except IsADirectoryError:
            raise UserError(
                f"{file}: a folder; an n-gram model is a file of scripts/train_lm.py (an LSTM rescores: --rescore)"
            ) from None
        except OSError as error:
            raise UserError(
                f"{file}: no language model can be read from it ({error.strerror}); make one with scripts/train_lm.py"
            ) from None
        return cls.load(file) if is_binary else cls.from_arpa(file)

    def to(self, device: torch.device | str) -> NGramLM:
        """Moves its tensors."""
        if torch.device(device) != self.keys.device:
            for derived in ("context", "backoff_to_empty", "unknown"):
                self.__dict__.pop(derived, None)
        for name in ("keys", "log_prob", "backoff", "suffix"):
            setattr(self, name, getattr(self, name).to(device))
        return self

    def to_arpa(self, file: str | Path) -> None:
        """Writes an ARPA file; gzipped where its name ends in .gz."""
        V, keys = len(self.words), self.keys.numpy()
        below = np.empty((1, 0), np.int64)  # the words of all nodes one order lower
        tables = []
        for first, end, lower in zip(self.starts[:-1], self.starts[1:], [0, *self.starts], strict=False):
            parent, word = np.divmod(keys[first - 1 : end - 1], V)
            below = np.concatenate([below[parent - lower], word[:, None]], 1)
            tables.append(Table(below, self.log_prob[first:end].numpy(), self.backoff[first:end].numpy()))
        write_arpa(file, self.words, tables)

    @property
    def begin(self) -> int:
        """The node of a sentence's begin; unigrams have no contexts."""
        return 1 + BEGIN if self.order > 1 else 0

    def advance(self, nodes: Tensor, words: Tensor) -> tuple[Tensor, Tensor]:
        """Context nodes and next words (ids), any shape -> log10 P(word | context) and the nodes after the words."""
        chain = [nodes]  # ever shorter contexts, down to the empty one, which knows every word
        for _ in range(self.order - 1):
            chain.append(self.suffix.take(chain[-1]))
        contexts = torch.stack(chain)
        wanted = torch.add(words, contexts, alpha=len(self.words))
        at = torch.searchsorted(self.keys, wanted).clamp_(max=len(self.keys) - 1)
        # The longest context that has the word.
        first = (self.keys.take(at) == wanted).byte().argmax(0, keepdim=True)
        found = 1 + at.gather(0, first).squeeze(0)
        longest = contexts.gather(0, first).squeeze(0)
        skipped = self.backoff_to_empty.take(nodes) - self.backoff_to_empty.take(longest)
        return skipped + self.log_prob.take(found), self.context.take(found)

    def advance_unknown(self, nodes: Tensor) -> tuple[Tensor, Tensor]:
        """``advance`` by an unknown word."""
        points, after = self.unknown
        return points.take(nodes), after.take(nodes)

    def score(self, sentence: str) -> float:
        """log10 P of a sentence with its begin and end; unknown words count as ``<unk>``."""
        return sentence_score(self, self.ids, sentence)

    def save(self, file: str | Path) -> None:
        """Writes the binary form, which opens in well under a second."""
        tensors = {
            "keys": self.keys,
            "log_prob": self.log_prob,
            "backoff": self.backoff,
            "suffix": self.suffix,
        }
        about = {"format": FORMAT, "words": json.dumps(self.words), "starts": json.dumps(self.starts)}
        with written_whole(Path(file)) as partial:
            save_tensors({name: tensor.contiguous() for name, tensor in tensors.items()}, partial, about)

    @classmethod
    def load(cls, file: str | Path) -> NGramLM:
        """Opens what ``save`` wrote. Raises ``UserError`` for a file that is missing, damaged or another program's."""
        try:
            with safe_open(file, "pt") as opened:
                about = opened.metadata() or {}
                if about.get("format") != FORMAT:
                    raise UserError(
                        f"{file}: not a Lectern language model; make one with scripts/train_lm.py"
                    )
                tensors = {name: opened.get_tensor(name) for name in opened.keys()}
        except FileNotFoundError:
            raise UserError(
                f"{file}: there is no such language model; make one with scripts/train_lm.py"
            ) from None
        except (SafetensorError, OSError) as error:
            raise UserError(
                f"{file}: no language model can be read from it ({error}); make it again"
            ) from None
        try:
            lm = cls(json.loads(about["words"]), **tensors, starts=json.loads(about["starts"]))
            fits = is_trie(lm)
        except (KeyError, TypeError, ValueError, IndexError):
            fits = False
        if not fits:
            raise UserError(f"{file}: its parts do not fit together; make it again")
        return lm


def sentence_score(lm: Any, ids: dict[str, int], sentence: str) -> float:
    """log10 P of a sentence from the model's ``begin`` to its end, word by word."""
    context, total = torch.tensor([lm.begin]), 0.0
    numbers = [ids.get(word, UNKNOWN) for word in sentence.split()]
    for word in [*(number if number > END else UNKNOWN for number in numbers), END]:
        points, context = lm.advance(context, torch.tensor([word]))
        total += float(points)
    return total
