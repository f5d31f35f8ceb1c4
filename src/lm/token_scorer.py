"""An n-gram model of the tokenizer's own tokens in a beam search.

It answers for all hypotheses [batch, beam] at once, and keeps every next token's points per hypothesis: what is asked
anew in a step is only what its new tokens changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from src.decoding.scorer import is_cheap_to_ask, touched
from src.decoding.settings import is_path, require
from src.lm.kneser_ney import END, SPECIAL, UNKNOWN
from src.lm.ngram import LM_EXPECTED, LN_10, NGramLM
from src.utils.errors import UserError

LEAST_SHARE_OF_TOKENS = 0.75


class _Tokens(NamedTuple):
    """The state of ``TokenNGramScorer``."""

    node: Tensor  # [B, K] the language model's context
    points: Tensor  # [B, K, V] of every next token


class TokenNGramScorer:
    """P(token | tokens before) of a model whose words are the tokenizer's tokens, added with every token.

    Every word of the model must be a token, and at least three quarters of the tokens must be words of it: a rare one
    may be missing in the text that it was estimated from. So a model of words is refused, though its text has single
    letters, and one of another tokenizer, though each of this one's tokens is also one of that.

    Args:
        lm: the language model as ``scripts/train_lm.py --tokens`` makes it, or its file.
        tokens: of the tokenizer by id.

    Raises ``UserError`` for a model of words or of another tokenizer's tokens.
    """

    def __init__(self, lm: NGramLM | str | Path, tokens: Sequence[str]) -> None:
        require(isinstance(lm, NGramLM) or is_path(lm), "lm", lm, LM_EXPECTED)
        self.lm = lm = NGramLM.open(lm) if is_path(lm) else lm
        V = len(tokens)
        words = torch.tensor([lm.ids.get(token, UNKNOWN) for token in tokens])
        words[0] = UNKNOWN  # blank, or the end of the sentence: no scorer is asked for it here
        known = int((words != UNKNOWN).sum())
        own = set(tokens[1:])
        foreign = next((word for word in lm.words if word not in own and word not in SPECIAL), None)
        if foreign is not None or known < max(1, LEAST_SHARE_OF_TOKENS * (V - 1)):
            example = "" if foreign is None else f", and its '{foreign}' is none"
            raise UserError(
                f"the language model knows {known} of the tokenizer's {V - 1} tokens{example}; estimate one of this "
                "tokenizer's tokens with scripts/train_lm.py --tokens"
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
            most = int(count.max()) if is_cheap_to_ask(nodes.device) and len(count) else self.most_children
            place = torch.arange(most, device=nodes.device)
            at = (first[:, None] + place).clamp(max=len(self.child_token) - 1)
            token = torch.where(place < count[:, None], self.child_token[at], V)
            points.scatter_(1, token, self.lm.log_prob[1 + at] + weight[:, None])
        return LN_10 * points[:, :V]
