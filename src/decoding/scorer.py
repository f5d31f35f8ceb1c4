"""External knowledge in a beam search, on the search's own tensors (language models, hotwords, length)."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from src.decoding.settings import is_count, require


class Scorer(Protocol):
    """Scores every token after every hypothesis of a beam. State is whatever the scorer likes.

    To be compiled with the search (``compile=True``) a scorer keeps to tensors whose sizes do not depend on values, as
    ``touched`` gives them, and its state to tensors, too.

    Column 0 of a score belongs to the end of the sentence and is ignored by all searches, which ask ``finish`` instead.
    """

    def to(self, device: torch.device | str) -> Any:
        """Moves what it knows to the device of the search; called before ``start``."""

    def start(self, batch_size: int) -> Any:
        """The state of one empty hypothesis per utterance."""

    def score(self, state: Any) -> Tensor:
        """[B, K, V] natural-log scores of each next token."""

    def advance(self, state: Any, parents: Tensor, tokens: Tensor) -> Any:
        """The state after hypothesis k became ``parents[b, k]`` followed by ``tokens[b, k]`` (-1: unchanged)."""

    def finish(self, state: Any) -> Tensor:
        """[B, K] score of ending the sentence here."""


class LengthBonus:
    """One point per token: offsets a language model's preference for short sentences.

    >>> bonus = LengthBonus(vocab_size=3)
    >>> bonus.score(bonus.start(batch_size=1)).tolist()
    [[[0.0, 1.0, 1.0]]]
    """

    def __init__(self, vocab_size: int) -> None:
        fits = is_count(vocab_size, 1) and vocab_size <= 10**7
        require(fits, "vocab_size", vocab_size, "a whole number from 1 to 10 million")
        self.points = torch.ones(vocab_size)
        self.points[0] = 0.0

    def to(self, device: torch.device | str) -> LengthBonus:
        self.points = self.points.to(device)
        return self

    def start(self, batch_size: int) -> Tensor:
        return torch.zeros(batch_size, 1, device=self.points.device)

    def score(self, state: Tensor) -> Tensor:
        return self.points.expand(*state.shape, -1)

    def advance(self, state: Tensor, parents: Tensor, tokens: Tensor) -> Tensor:
        return torch.zeros_like(tokens, dtype=torch.float32)

    def finish(self, state: Tensor) -> Tensor:
        return state


class FarScorer(Scorer, Protocol):
    """A scorer that can be charged with several tokens at once, where a search folds frames (``fold_sure``); others
    are charged with one after the other."""

    needs_step: Tensor  # [V] which tokens it cannot be charged with so

    def advance_far(self, state: Any, parents: Tensor, tokens: Tensor, added: Tensor) -> tuple[Any, Tensor]:
        """``advance``, and then all hypotheses of utterance b gain the tokens ``added[b]``, too.

        state, parents [B, K], tokens [B, K] (-1: unchanged) as in ``advance``; added [B, L] ids, -1 after the last one,
        none of which ``needs_step``. Returns the state after all of that, and [B, K] what the added tokens are worth
        (natural log, without the weight): the sum of ``score`` for each one in turn. What ``tokens`` are worth is no
        part of it.
        """


def touched(tokens: Tensor) -> Tensor:
    """tokens [B, K] -> the slots [n] of B * K whose new token a scorer has to look at (or more)."""
    tokens = tokens.flatten()
    if is_cheap_to_ask(tokens.device):
        return (tokens >= 0).nonzero().squeeze(1)
    return torch.arange(len(tokens), device=tokens.device)


def is_cheap_to_ask(device: torch.device) -> bool:
    """Whether sizes may depend on values: a GPU would have to be waited for, and compiled code has fixed sizes."""
    return device.type == "cpu" and not torch.compiler.is_compiling()
