"""From the n-grams of an ARPA file, in any order, to the sorted trie that ``NGramLM`` is."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from src.lm.arpa import Table
from src.utils.errors import UserError


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
