"""All the scorers of a beam as one (shallow fusion): what every beam search does with its language models and hotwords.

A search keeps a list of states, one of each scorer, and hands it back and forth; the tensors are [batch, beam]:

    states = fusion.start(B, K, device)                  # K empty hypotheses for each utterance
    added = fusion.points(states, vocab_size)            # [B, K, V] for each next token; None: there are no scorers
    states = fusion.advance(states, parents, tokens)     # after each step that changed the beam
    score = score + fusion.finish(states)                # [B, K] when a sentence ends
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from src.decoding.scorer import Scorer, is_cheap_to_ask
from src.decoding.settings import require, require_scorers


class Fusion:
    """The weighted sum of scorers.

    Args:
        scorers: pairs (``Scorer``, weight). Those with a weight of 0 are never asked: nothing times minus infinity is
            no number.

    Raises ``UserError`` for what is no such list.

    Example:
        >>> from src.decoding.scorer import LengthBonus
        >>> fusion = Fusion([(LengthBonus(3), 0.5), (LengthBonus(3), 2.0)])
        >>> states = fusion.start(batch_size=1, beam_size=2, device=torch.device("cpu"))
        >>> fusion.points(states, vocab_size=3).tolist()
        [[[0.0, 2.5, 2.5], [0.0, 2.5, 2.5]]]
    """

    def __init__(self, scorers: Sequence[tuple[Scorer, float]]) -> None:
        require_scorers(scorers)
        self.scorers = tuple((scorer, weight) for scorer, weight in scorers if weight)

    def start(self, batch_size: int, beam_size: int, device: torch.device) -> list[Any]:
        """The states of as many empty hypotheses, on this device."""
        parents = torch.zeros(batch_size, beam_size, dtype=torch.long, device=device)
        states = []
        for scorer, _ in self.scorers:
            scorer.to(device)
            states.append(scorer.advance(scorer.start(batch_size), parents, torch.full_like(parents, -1)))
        return states

    def points(self, states: list[Any], vocab_size: int, tokens: Tensor | None = None) -> Tensor | None:
        """What is added to each hypothesis for each token, [B, K, V] float64; for tokens [B, M] alone: [B, K, M].

        Raises ``UserError`` for a scorer whose tokens are not as many.
        """
        total = None
        for (scorer, weight), state in zip(self.scorers, states, strict=True):
            points = scorer.score(state)
            V = points.size(-1)
            require(V == vocab_size, f"{type(scorer).__name__}'s vocabulary", V, f"the model's, {vocab_size}")
            if tokens is not None:
                points = points.gather(2, tokens[:, None].expand(-1, points.size(1), -1))
            total = weight * points.double() if total is None else torch.add(total, points, alpha=weight)
        return total

    def advance(self, states: list[Any], parents: Tensor, tokens: Tensor) -> list[Any]:
        """Hypothesis k became ``parents[b, k]`` followed by ``tokens[b, k]`` (-1: unchanged); [B, K] each."""
        return [
            scorer.advance(state, parents, tokens)
            for (scorer, _), state in zip(self.scorers, states, strict=True)
        ]

    def advance_far(
        self, states: list[Any], parents: Tensor, tokens: Tensor, added: Tensor
    ) -> tuple[list[Any], Tensor]:
        """``advance``, and then all hypotheses of utterance b gain the tokens ``added[b]`` [B, L] (-1: none), too; and
        what that adds to each hypothesis, [B, K] float64."""
        after, total = [], torch.zeros(parents.shape, dtype=torch.float64, device=parents.device)
        for (scorer, weight), state in zip(self.scorers, states, strict=True):
            if hasattr(scorer, "advance_far"):
                state, points = scorer.advance_far(state, parents, tokens, added)
            else:
                state, points = _token_by_token(scorer, state, parents, tokens, added)
            after.append(state)
            total = torch.add(total, points, alpha=weight)
        return after, total

    def needs_step(self, vocab_size: int) -> Tensor | None:
        """[V] which tokens ``advance_far`` of one of the scorers cannot add, or None."""
        tokens = [scorer.needs_step for scorer, _ in self.scorers if hasattr(scorer, "advance_far")]
        fits = all(len(needs) == vocab_size for needs in tokens)  # or ``points`` says that they do not
        return torch.stack(tokens).any(0) if tokens and fits else None

    def finish(self, states: list[Any]) -> Tensor | int:
        """What the end of the sentence adds to each hypothesis, [B, K] float64; 0 where there are no scorers."""
        pairs = zip(self.scorers, states, strict=True)
        return sum(weight * scorer.finish(state).double() for (scorer, weight), state in pairs)


def _token_by_token(
    scorer: Scorer, state: Any, parents: Tensor, tokens: Tensor, added: Tensor
) -> tuple[Any, Tensor]:
    """``FarScorer.advance_far`` of any scorer."""
    state = scorer.advance(state, parents, tokens)
    here = torch.arange(parents.size(1), device=parents.device).expand_as(parents)
    points = torch.zeros(parents.shape, dtype=torch.float64, device=parents.device)
    for column in added.unbind(1):
        if is_cheap_to_ask(column.device) and not (column >= 0).any():
            break
        token = column[:, None].expand_as(parents)
        worth = scorer.score(state).gather(2, token.clamp_min(0).unsqueeze(2)).squeeze(2)
        points = points + torch.where(token >= 0, worth, 0.0)
        state = scorer.advance(state, here, token)
    return state, points
