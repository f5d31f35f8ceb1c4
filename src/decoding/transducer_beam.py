"""Transducer beam search on [batch, beam] tensors, frame by frame, with equal prefixes merged.

A path through the lattice leaves every frame by a blank, after at most S tokens in it. In each of S rounds every prefix
may grow by one token; a prefix that others grow into receives their mass, and what has left the frame by a blank is
added up over the rounds. Unpruned, with S at least a text's length, that is the transducer's forward recursion.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from src.decoding.history import History, Pointers
from src.decoding.hypothesis import Hypothesis
from src.decoding.prefix_names import EMPTY, find_parents, longer, no_names
from src.decoding.scorer import Scorer, is_cheap_to_ask, touched
from src.decoding.settings import (
    NEVER,
    is_count,
    is_number,
    require,
    require_beam_size,
    require_blank,
    require_scorers,
)
from src.decoding.transducer_greedy import Transducer


class TransducerBeamSearch:
    """Beam search for transducers, batched over utterances and hypotheses.

    A beam as large as the number of prefixes is exact: a hypothesis's acoustic score is log P of all its alignments
    with at most ``max_symbols_per_frame`` tokens in a frame. With one hypothesis it makes the greedy search's choices.

    Args:
        beam_size: prefixes kept per utterance, K; also the length of the n-best list.
        max_symbols_per_frame: S.
        blank: the blank's token id.
        scorers: pairs (``Scorer``, weight) added to the acoustic score of each token and at the end.
        beam_threshold: drop hypotheses whose score is lower than the best one's by more than this (natural log). In
            most frames of a trained model no hypothesis then grows, and the predictor has nothing to do.

    Raises ``UserError`` for a setting that is out of its range.
    """

    def __init__(
        self,
        beam_size: int = 4,
        max_symbols_per_frame: int = 1,
        blank: int = 0,
        scorers: Sequence[tuple[Scorer, float]] = (),
        beam_threshold: float | None = None,
    ) -> None:
        require_beam_size(beam_size)
        fits = beam_threshold is None or (is_number(beam_threshold) and beam_threshold >= 0)
        require(fits, "beam_threshold", beam_threshold, "a number of at least 0")
        require(
            is_count(max_symbols_per_frame, 1), "max_symbols_per_frame", max_symbols_per_frame, "at least 1"
        )
        require_blank(blank)
        require_scorers(scorers)
        self.beam_size, self.max_symbols_per_frame, self.blank = beam_size, max_symbols_per_frame, blank
        self.scorers, self.beam_threshold = tuple(scorers), beam_threshold

    @torch.inference_mode()
    def __call__(
        self, model: Transducer, joint_encoded: Tensor, encoded_lengths: Tensor
    ) -> list[list[Hypothesis]]:
        """joint_encoded [B, T, H], encoded_lengths [B] -> per utterance at most K hypotheses, best first."""
        B, T, _ = joint_encoded.shape
        K, device = self.beam_size, joint_encoded.device
        prefixes = _Prefixes.empty(B, K, self.blank, device)
        texts = _Texts(model, B, K)
        states = []
        for scorer, _ in self.scorers:
            scorer.to(device)
            unchanged = torch.zeros_like(prefixes.last), torch.full_like(prefixes.last, -1)
            states.append(scorer.advance(scorer.start(B), *unchanged))
        no_names_here = no_names(B, K, device)
        steps, posteriors = [], []
        for t in range(T):
            inside = (t < encoded_lengths)[:, None, None]
            log_probs = texts.log_probs(joint_encoded[:, t], inside, self.blank)
            active, left = prefixes.total, prefixes.total + log_probs[..., self.blank]
            for _ in range(self.max_symbols_per_frame):
                fusion = self._fuse(states, log_probs)
                prefixes, active, pointers = _grow(
                    prefixes, active, left, log_probs, fusion, self.blank, no_names_here, self.beam_threshold
                )
                grew = pointers.tokens >= 0
                parents, tokens = pointers.followed()
                rows = log_probs.flatten(1).gather(1, parents * log_probs.size(2) + tokens.clamp_min(0))
                steps.append((parents, tokens))
                posteriors.append((rows, t))
                left = prefixes.total
                texts.advance(pointers.parents, pointers.tokens)
                states = [
                    scorer.advance(state, pointers.parents, pointers.tokens)
                    for (scorer, _), state in zip(self.scorers, states, strict=True)
                ]
                if is_cheap_to_ask(device) and not grew.any():
                    break
                log_probs = texts.log_probs(joint_encoded[:, t], inside, self.blank)
                left = torch.where(grew, active + log_probs[..., self.blank], prefixes.total)
            prefixes = prefixes._replace(total=left)
        history = History(B, K)
        if steps:
            parents, tokens = (torch.stack(part) for part in zip(*steps, strict=True))
            rows, times = zip(*posteriors, strict=True)
            times = torch.tensor(times, device=device)[:, None].expand(-1, B)
            history.add(parents, tokens, torch.stack(rows), times)
        score = prefixes.total + prefixes.fused
        for (scorer, weight), state in zip(self.scorers, states, strict=True):
            if weight:  # nothing times minus infinity is no number
                score = score + weight * scorer.finish(state).to(score)
        return history.hypotheses(score, prefixes.total, has_scorers=bool(self.scorers))

    def _fuse(self, states: list[Any], log_probs: Tensor) -> Tensor | None:
        """Weighted sum of the scorers' points for each prefix and token, [B, K, V]."""
        fusion = None
        for (scorer, weight), state in zip(self.scorers, states, strict=True):
            points = scorer.score(state)
            V, expected = points.size(-1), log_probs.size(-1)
            require(V == expected, f"{type(scorer).__name__}'s vocabulary", V, f"the model's, {expected}")
            if weight:
                points = weight * points.double()
                fusion = points if fusion is None else fusion + points
        return fusion


class _Prefixes(NamedTuple):
    """K prefixes of B utterances, [B, K] each; a slot that holds none has a probability of 0."""

    total: Tensor  # log probability of having left all frames so far
    fused: Tensor  # what the scorers have added
    last: Tensor  # its last token; the blank where it has none
    name: Tensor

    @classmethod
    def empty(cls, batch_size: int, beam_size: int, blank: int, device: torch.device) -> _Prefixes:
        """The empty prefix in slot 0, nothing in the others."""
        total = torch.full((batch_size, beam_size), NEVER, dtype=torch.float64, device=device)
        total[:, 0] = 0.0
        name = no_names(batch_size, beam_size, device)
        name[:, 0] = EMPTY
        return cls(total, torch.zeros_like(total), torch.full_like(name, blank), name)


def _grow(
    prefixes: _Prefixes,
    active: Tensor,
    left: Tensor,
    log_probs: Tensor,
    fusion: Tensor | None,
    blank: int,
    no_names: Tensor,
    threshold: float | None,
) -> tuple[_Prefixes, Tensor, Pointers]:
    """A round: every prefix may grow by a token.

    Args:
        active: [B, K] mass that may still grow in this frame.
        left: [B, K] mass that has left the frame.
        log_probs, fusion: [B, K, V] of each next token, and what scorers give for it.

    Returns the K best, of which the total of those that did not grow is what has left; the mass [B, K] that may grow
    in the next round; and the pointers.
    """
    _, fused, last, name = prefixes
    (B, K), V = last.shape, log_probs.size(2)
    has_parent, parent = find_parents(name, last)
    flat = parent * V + last
    arriving = active.gather(1, parent) + log_probs.flatten(1).gather(1, flat)
    arriving = torch.where(has_parent, arriving, NEVER)
    staying_on = arriving + log_probs[..., blank]
    left = torch.logaddexp(left, staying_on)

    grown = active.unsqueeze(2) + log_probs
    grown[..., blank] = NEVER
    grown = torch.cat([grown.flatten(1), grown.new_full((B, 1), NEVER)], 1)
    grown.scatter_(1, torch.where(has_parent, flat, K * V), NEVER)  # counted already
    mass = torch.cat([left, grown[:, :-1]], 1)
    if fusion is None:
        total, best = mass.topk(K, dim=1)
        rank = total
    else:
        added = torch.cat([fused, (fused.unsqueeze(2) + fusion).flatten(1)], 1)
        rank, best = (mass + added).topk(K, dim=1)
        total, fused = mass.gather(1, best), added.gather(1, best)
    if threshold is not None:
        total = total.masked_fill(rank < rank[:, :1] - threshold, NEVER)
    is_dead = total == NEVER
    is_new = (best >= K) & ~is_dead
    pair = (best - K).clamp_min(0)
    parents = torch.where(best >= K, pair // V, best)
    tokens = torch.where(is_new, pair % V, -1)
    old_name = name.gather(1, parents)
    after = _Prefixes(
        total=total,
        fused=fused,
        last=torch.where(is_new, tokens, last.gather(1, parents)),
        name=torch.where(is_dead, no_names, torch.where(is_new, longer(old_name, tokens), old_name)),
    )
    active = torch.where(is_new, total, arriving.gather(1, parents).masked_fill(is_dead, NEVER))
    return after, active, Pointers(parents, tokens, parent, last, staying_on, left)


class _Texts:
    """What the predictor makes of the prefixes: joint_predicted [B, K, H], and its state."""

    def __init__(self, model: Transducer, batch_size: int, beam_size: int) -> None:
        self.model, self.shape = model, (batch_size, beam_size)
        state = model.predictor.begin(batch_size * beam_size)
        begin = torch.zeros(batch_size * beam_size, dtype=torch.long, device=state[0].device)
        self.predicted, self.state = model.predict(begin, state)

    def advance(self, parents: Tensor, tokens: Tensor) -> None:
        """Prefix k became ``parents[b, k]`` followed by ``tokens[b, k]`` (-1: unchanged)."""
        B, K = self.shape
        slots = (parents + K * torch.arange(B, device=parents.device)[:, None]).flatten()
        parts = [part.index_select(0, slots) for part in (self.predicted, *self.state)]
        at = touched(tokens)
        if len(at):
            token = tokens.flatten()[at]
            old = [part.index_select(0, at) for part in parts]
            predicted, state = self.model.predict(token.clamp_min(0), tuple(old[1:]))
            grows = token[:, None] >= 0
            for part, before, now in zip(parts, old, (predicted, *state), strict=True):
                part.index_copy_(0, at, torch.where(grows, now, before))
        self.predicted, self.state = parts[0], tuple(parts[1:])

    def log_probs(self, frame: Tensor, inside: Tensor, blank: int) -> Tensor:
        """joint_encoded of a frame [B, H] -> log_probs [B, K, V] float64; beyond the end a sure blank."""
        log_probs = self.model.joint(frame[:, None], self.predicted.view(*self.shape, -1)).double()
        padding = torch.full_like(log_probs[0, 0], NEVER)
        padding[blank] = 0.0
        return torch.where(inside, log_probs, padding)
