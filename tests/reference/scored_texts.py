"""What scorers add to one text, asked token by token."""

from __future__ import annotations

from functools import cache

import torch


class ScoredTexts:
    """``points(text)``: the weighted sum of scorers [V] for each next token; ``end(text)``: for the end."""

    def __init__(self, scorers: list, vocab_size: int) -> None:
        self.scorers, self.vocab_size = scorers, vocab_size
        self.points, self.end = cache(self.points), cache(self.end)

    def _states(self, text: tuple[int, ...]) -> list:
        states = []
        for scorer, weight in self.scorers:
            state = scorer.start(1)
            for token in text:
                state = scorer.advance(state, torch.zeros(1, 1, dtype=torch.long), torch.tensor([[token]]))
            states.append((scorer, weight, state))
        return states

    def points(self, text: tuple[int, ...]) -> list[float]:
        total = torch.zeros(self.vocab_size, dtype=torch.float64)
        for scorer, weight, state in self._states(text):
            total += weight * scorer.score(state)[0, 0].double()
        return total.tolist()

    def end(self, text: tuple[int, ...]) -> float:
        return sum(weight * float(scorer.finish(state)) for scorer, weight, state in self._states(text))

    def whole(self, text: tuple[int, ...]) -> float:
        """Of all of its tokens."""
        return sum(self.points(text[:n])[token] for n, token in enumerate(text))
