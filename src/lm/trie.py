"""The sorted trie that ``NGramLM`` is: grown from an ARPA file's n-grams, in any order, and looked over when read."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from src.lm.arpa import Table
from src.lm.kneser_ney import SPECIAL
from src.utils.errors import UserError


def is_trie(lm: Any) -> bool:
    """Whether the parts of an ``NGramLM`` are as they must be, whatever a file had in their places.

    Not looked at, so that reading stays quick: which of the shorter n-grams a suffix is, and sums of probabilities.
    """
    words, starts = lm.words, lm.starts
    parts = [
        (lm.keys, torch.int64),
        (lm.suffix, torch.int64),
        (lm.log_prob, torch.float32),
        (lm.backoff, torch.float32),
    ]
    if not (
        all(part.dtype == dtype and part.dim() == 1 for part, dtype in parts)
        and all(isinstance(word, str) for word in words)
        and len(set(words)) == len(words)
        and tuple(words[: len(SPECIAL)]) == SPECIAL
        and all(type(start) is int for start in starts)
        and starts[:2] == [1, 1 + len(words)]
        and starts == sorted(starts)
        and starts[-1] == len(lm.log_prob) == len(lm.backoff) == len(lm.suffix) == 1 + len(lm.keys)
    ):
        return False
    # The keys ascend, so that the first and the last one of an order tell where all its parents are.
    levels = [(0, 1), *pairwise(starts)]
    nested = all(
        below * len(words) <= int(lm.keys[first - 1])
        and int(lm.keys[end - 2]) < first * len(words)
        and 0 <= int(lm.suffix[first:end].min())
        and int(lm.suffix[first:end].max()) < first
        for (below, _), (first, end) in pairwise(levels)
        if first < end
    )
    return (
        nested
        and bool((lm.keys[1:] > lm.keys[:-1]).all())
        and bool(lm.log_prob.isfinite().all() and lm.log_prob.max() <= 0 and lm.backoff.isfinite().all())
        and not lm.log_prob[0]
        and not lm.backoff[0]
        and not lm.suffix[0]
    )


class Trie:
    """Grows order by order: node 0 is the empty context, a node's key is (its parent, its last word).

    Attributes: ``keys``, ``log_prob``, ``backoff``, ``suffix`` and ``starts`` as ``NGramLM`` has them.
    """

    def __init__(self, file: str | Path, words: list[str]) -> None:
        self.file, self.words = file, words  # the file's name for messages
        self.keys = np.empty(0, np.int64)
        self.log_prob, self.backoff, self.suffix = np.zeros(1), np.zeros(1), np.zeros(1, np.int64)
        self.starts = [1]

    def add(self, table: Table) -> None:
        """All n-grams of the next order. Raises ``UserError`` for one without its context, or one that stands twice."""
        order = table.words.shape[1]
        parent = np.zeros(len(table.words), np.int64)
        for position in range(order - 1):
            parent = self._child(parent, table.words[:, position])
            if (parent == 0).any():
                lost = " ".join(self.words[i] for i in table.words[np.flatnonzero(parent == 0)[0]])
                raise UserError(
                    f"{self.file}: '{lost}' has no context among the shorter n-grams; it is damaged"
                )
        key = parent * len(self.words) + table.words[:, -1]
        rank = np.argsort(key)
        if (np.diff(key[rank]) == 0).any():
            raise UserError(
                f"{self.file}: an n-gram of order {order} stands twice; it is damaged, get it again"
            )
        self.suffix = np.concatenate([self.suffix, self._longest(table.words[rank, 1:])])
        self.keys = np.concatenate([self.keys, key[rank]])
        self.log_prob = np.concatenate([self.log_prob, table.log_prob[rank]])
        self.backoff = np.concatenate([self.backoff, table.backoff[rank]])
        self.starts.append(self.starts[-1] + len(key))

    def _child(self, nodes: np.ndarray, word: np.ndarray) -> np.ndarray:
        """The nodes one word longer; 0 where the file has no such n-gram."""
        wanted = nodes * len(self.words) + word
        at = np.searchsorted(self.keys, wanted).clip(max=len(self.keys) - 1)
        return np.where(self.keys[at] == wanted, at + 1, 0)

    def _longest(self, ngrams: np.ndarray) -> np.ndarray:
        """The nodes of the longest n-grams that end the given ones [M, n]; 0 where n is 0."""
        found = np.zeros(len(ngrams), np.int64)
        for first in range(ngrams.shape[1]):
            nodes = self._child(np.zeros_like(found), ngrams[:, first])
            for position in range(first + 1, ngrams.shape[1]):
                nodes = np.where(nodes > 0, self._child(nodes, ngrams[:, position]), 0)
            found = np.where(found == 0, nodes, found)
        return found
