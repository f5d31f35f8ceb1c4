"""N-gram language models in a beam search: one word at a time over any tokens, or one token at a time.

Both answer for all hypotheses [batch, beam] at once, and remember per hypothesis what they found out: what is asked
anew in a step is only what its new tokens changed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from src.decoding.scorer import touched
from src.decoding.settings import is_number, require
from src.lm.kneser_ney import END, UNKNOWN
from src.lm.ngram import SPECIAL, NGramLM
from src.utils.errors import UserError

LN_10 = math.log(10)
WORD_START = "▁"
# Of the polynomial hash of a word's letters, modulo 2^64.
BASE = 6364136223846793005
LEAST_SHARE_OF_WORDS = 0.05
LEAST_SHARE_OF_TOKENS = 0.5


def word_hash(letters: str) -> int:
    """A 64-bit name of a word, of which ``hash(ab) = hash(a) * BASE ** len(b) + hash(b)``; 0 for no letters."""
    value = 0
    for letter in letters:
        value = (value * BASE + ord(letter) + 1) % 2**64
    return value - 2**64 if value >= 2**63 else value


class _Words(NamedTuple):
    """The state of ``WordNGramScorer``, [B, K] each."""

    node: Tensor  # the language model's context before the open word
    open: Tensor  # hash of the open word's letters; 0: there are none
    points: Tensor  # of the open word, should it end here
    after: Tensor  # the language model's context then


class WordNGramScorer:
    """P(word | words before) of a word-level model, added when a word ends; for characters and for BPE.

    Args:
        lm: the language model, or its file. Its words are folded to lower case, as texts are.
        tokens: of the tokenizer by id; a token that begins with "▁" begins a word.
        unknown_penalty: added (natural log) for a word that the model does not have, besides its P(<unk>).

    Raises ``UserError`` when hardly any of the model's words can be written with the tokens (another language, or
    other letters).
    """

    def __init__(
        self, lm: NGramLM | str | Path, tokens: Sequence[str], unknown_penalty: float = -5.0
    ) -> None:
        require(is_number(unknown_penalty), "unknown_penalty", unknown_penalty, "a finite number")
        self.lm = lm = lm if isinstance(lm, NGramLM) else NGramLM.open(lm)
        self.unknown_penalty = unknown_penalty
        alphabet = {letter for token in tokens for letter in token.removeprefix(WORD_START)}
        ids: dict[str, int] = {}
        spelled = [(word.lower(), number) for number, word in enumerate(lm.words) if word not in SPECIAL]
        for word, number in sorted(spelled, key=lambda pair: -float(lm.log_prob[1 + pair[1]])):
            if alphabet.issuperset(word):
                ids.setdefault(word, number)  # "May" and "may": the more frequent one
        if len(ids) < LEAST_SHARE_OF_WORDS * len(spelled):
            example = next((word for word, _ in spelled if word not in ids), "")
            raise UserError(
                f"the language model's words (such as '{example}') cannot be written with the tokenizer's letters; "
                "take a model of the same language and alphabet"
            )
        hashes = np.array([word_hash(word) for word in ids], np.int64)
        rank = np.argsort(hashes)
        self.hashes = torch.from_numpy(hashes[rank])
        self.words = torch.from_numpy(np.array(list(ids.values()), np.int64)[rank])
        # Token 0 is blank or the end of the sentence: it changes no word.
        letters = ["", *(token.removeprefix(WORD_START) for token in tokens[1:])]
        self.starts_word = torch.tensor([False, *(token.startswith(WORD_START) for token in tokens[1:])])
        self.letters = torch.tensor([word_hash(text) for text in letters])
        self.shifts = torch.tensor([_signed(pow(BASE, len(text), 2**64)) for text in letters])

    def to(self, device: torch.device | str) -> WordNGramScorer:
        self.lm.to(device)
        for name in ("hashes", "words", "starts_word", "letters", "shifts"):
            setattr(self, name, getattr(self, name).to(device))
        return self

    def start(self, batch_size: int) -> _Words:
        node = torch.full((batch_size, 1), self.lm.begin, device=self.hashes.device)
        empty = torch.zeros_like(node)
        return _Words(node, empty, torch.zeros_like(node, dtype=torch.float64), node)

    def score(self, state: _Words) -> Tensor:
        """[B, K, V]: a token that begins a word ends the one before it."""
        return torch.where(self.starts_word, state.points.unsqueeze(-1), 0.0)

    def advance(self, state: _Words, parents: Tensor, tokens: Tensor) -> _Words:
        state = _Words(*(part.gather(1, parents) for part in state))
        slots = touched(tokens)
        token = tokens.flatten()[slots]
        grows, token = token >= 0, token.clamp_min(0)
        node, open_, points, after = (part.flatten()[slots] for part in state)
        starts = self.starts_word[token] & grows
        node = torch.where(starts, after, node)
        letters = torch.where(starts, 0, open_) * self.shifts[token] + self.letters[token]
        letters = torch.where(grows, letters, open_)
        new_points, new_after = self._close(node, letters)
        points, after = torch.where(grows, new_points, points), torch.where(grows, new_after, after)
        for part, values in zip(state, (node, letters, points, after), strict=True):
            part.view(-1)[slots] = values
        return state

    def finish(self, state: _Words) -> Tensor:
        """[B, K]: the open word, and the end of the sentence."""
        end, _ = self.lm.advance(state.after, torch.full_like(state.after, END))
        return state.points + LN_10 * end

    def _close(self, nodes: Tensor, letters: Tensor) -> tuple[Tensor, Tensor]:
        """Points and contexts after the words of these letters; no letters are no word."""
        at = torch.searchsorted(self.hashes, letters).clamp(max=len(self.hashes) - 1)
        known = self.hashes[at] == letters
        points, after = self.lm.advance(nodes, torch.where(known, self.words[at], UNKNOWN))
        points = LN_10 * points + torch.where(known, 0.0, self.unknown_penalty)
        is_word = letters != 0
        return torch.where(is_word, points, 0.0), torch.where(is_word, after, nodes)


def _signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value


class _Tokens(NamedTuple):
    """The state of ``TokenNGramScorer``."""

    node: Tensor  # [B, K] the language model's context
    points: Tensor  # [B, K, V] of every next token


class TokenNGramScorer:
    """P(token | tokens before) of a model whose words are the tokenizer's tokens, added with every token.

    Args:
        lm: the language model as ``scripts/train_lm.py --tokens`` makes it, or its file.
        tokens: of the tokenizer by id.

    Raises ``UserError`` when hardly any token is a word of the model (a model of words, or of another tokenizer).
    """

    def __init__(self, lm: NGramLM | str | Path, tokens: Sequence[str]) -> None:
        self.lm = lm = lm if isinstance(lm, NGramLM) else NGramLM.open(lm)
        V = len(tokens)
        words = torch.tensor([lm.ids.get(token, UNKNOWN) for token in tokens])
        words[0] = UNKNOWN  # blank, or the end of the sentence: no scorer is asked for it here
        known = int((words != UNKNOWN).sum())
        if known < max(1, LEAST_SHARE_OF_TOKENS * (V - 1)):
            raise UserError(
                f"the language model knows {known} of the tokenizer's {V - 1} tokens; estimate one with "
                "scripts/train_lm.py --tokens"
            )
        self.word_of = words
        self.token_of = torch.full((len(lm.words),), V)  # V: none
        self.token_of[words] = torch.arange(V)
        self.token_of[UNKNOWN] = V
        self.unigrams = lm.log_prob[1 + words]
        # Children of node n are the keys from child_start[n] to child_start[n + 1].
        nodes = torch.arange(len(lm.keys) + 2)
        self.child_start = torch.searchsorted(lm.keys, nodes * len(lm.words))
        self.child_token = self.token_of[lm.keys % len(lm.words)]
        self.most_children = int(self.child_start.diff()[1:].max())

    def to(self, device: torch.device | str) -> TokenNGramScorer:
        self.lm.to(device)
        for name in ("word_of", "token_of", "unigrams", "child_start", "child_token"):
            setattr(self, name, getattr(self, name).to(device))
        return self

    def start(self, batch_size: int) -> _Tokens:
        node = torch.full((batch_size, 1), self.lm.begin, device=self.word_of.device)
        return _Tokens(node, self._all_next(node.flatten()).unflatten(0, node.shape))

    def score(self, state: _Tokens) -> Tensor:
        return state.points

    def advance(self, state: _Tokens, parents: Tensor, tokens: Tensor) -> _Tokens:
        node = state.node.gather(1, parents)
        points = state.points.gather(1, parents.unsqueeze(2).expand(-1, -1, state.points.size(2)))
        slots = touched(tokens)
        token = tokens.flatten()[slots]
        old = node.flatten()[slots]
        new = torch.where(token >= 0, self.lm.advance(old, self.word_of[token.clamp_min(0)])[1], old)
        node.view(-1)[slots] = new
        points.view(-1, points.size(2))[slots] = self._all_next(new)
        return _Tokens(node, points)

    def finish(self, state: _Tokens) -> Tensor:
        """[B, K]: the end of the sentence."""
        return LN_10 * self.lm.advance(state.node, torch.full_like(state.node, END))[0]

    def _all_next(self, nodes: Tensor) -> Tensor:
        """Contexts [n] -> natural log P(token | context) [n, V]."""
        chain = [nodes]
        for _ in range(self.lm.order - 2):
            chain.append(self.lm.suffix[chain[-1]])
        weights = [torch.zeros_like(self.lm.backoff[nodes])]
        for node in chain:
            weights.append(weights[-1] + self.lm.backoff[node])
        # Shorter contexts first; what a longer one knows of takes their place.
        V = len(self.unigrams)
        points = torch.empty(len(nodes), V + 1, dtype=weights[0].dtype, device=nodes.device)
        points[:, :V] = self.unigrams + weights[-1][:, None]
        for node, weight in zip(reversed(chain), reversed(weights[:-1]), strict=True):
            first = self.child_start[node]
            count = torch.where(node > 0, self.child_start[node + 1] - first, 0)
            # On a GPU asking how many there are at most would wait for the device.
            most = int(count.max()) if nodes.device.type == "cpu" and len(count) else self.most_children
            place = torch.arange(most, device=nodes.device)
            at = (first[:, None] + place).clamp(max=len(self.child_token) - 1)
            token = torch.where(place < count[:, None], self.child_token[at], V)
            points.scatter_(1, token, self.lm.log_prob[1 + at] + weight[:, None])
        return LN_10 * points[:, :V]
