"""A language model for beams whose every number is known."""

from __future__ import annotations

import torch


class Bigram:
    """A scorer whose every number is known: log p(next | last), column 0 = end."""

    def __init__(self, table: torch.Tensor) -> None:
        self.table = table  # [V + 1, V]; row V = start

    def to(self, device):
        return self

    def start(self, batch_size):
        return torch.full((batch_size, 1), self.table.size(1))

    def score(self, state):
        return self.table[state]

    def advance(self, state, parents, tokens):
        return torch.where(tokens >= 0, tokens, state.gather(1, parents))

    def finish(self, state):
        return self.table[state][..., 0]

    def of(self, tokens):
        states = [self.table.size(1), *tokens]
        return sum(float(self.table[a, b]) for a, b in zip(states, [*tokens, 0], strict=True))
