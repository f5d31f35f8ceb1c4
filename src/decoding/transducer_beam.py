"""Transducer beam search on [batch, beam] tensors, frame by frame, with equal prefixes merged.

A path through the lattice leaves every frame by a blank, after at most S tokens in it. In each of S rounds every prefix
may grow by one token; a prefix that others grow into receives their mass, and what has left the frame by a blank is
added up over the rounds. Unpruned, with S at least a text's length, that is the transducer's forward recursion.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from src.decoding.fusion import Fusion
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
    require_blank_in_vocabulary,
    require_lengths,
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
        self.beam_size, self.max_symbols_per_frame, self.blank = beam_size, max_symbols_per_frame, blank
        self.scorers, self.fusion, self.beam_threshold = tuple(scorers), Fusion(scorers), beam_threshold

    @torch.inference_mode()
    def __call__(
        self, model: Transducer, joint_encoded: Tensor, encoded_lengths: Tensor
    ) -> list[list[Hypothesis]]:
        """joint_encoded [B, T, H], encoded_lengths [B] -> per utterance at most K hypotheses, best first."""
        B, T, _ = joint_encoded.shape
        K, device = self.beam_size, joint_encoded.device
        require_lengths(encoded_lengths, T)
        prefixes = _Prefixes.empty(B, K, self.blank, device)
        texts = _Texts(model, B, K)
        states = self.fusion.start(B, K, device)
        nothing = no_names(B, K, device)
        inside = torch.arange(T, device=device) < encoded_lengths[:, None]
        # Until then no row is at its end; asking costs nothing on a CPU alone.
        first_end = int(encoded_lengths.min()) if is_cheap_to_ask(device) else 0
        steps, times = [], []
        for t in range(T):
            frame = joint_encoded[:, t]
            active = prefixes.total
            for symbol in range(self.max_symbols_per_frame):
                log_probs = texts.log_probs(frame)
                require_blank_in_vocabulary(self.blank, log_probs)
                if t >= first_end:
                    log_probs = _blank_where(~inside[:, t], log_probs, self.blank)
                if symbol == 0:
                    left = active + log_probs[..., self.blank]
                fusion = self.fusion.points(states, log_probs.size(2))
                prefixes, active, step = _grow(
                    prefixes, active, left, log_probs, fusion, self.blank, nothing, self.beam_threshold
                )
                steps.append(step)
                times.append(t)
                parents, tokens = step.pointers.parents, step.pointers.tokens
                blank_after = texts.advance(parents, tokens, frame, self.blank)
                left = torch.where(tokens >= 0, active + blank_after, prefixes.total)
                states = self.fusion.advance(states, parents, tokens)
                if is_cheap_to_ask(device) and self.max_symbols_per_frame > 1 and not (active > NEVER).any():
                    break
            prefixes = prefixes._replace(total=left)
        history = _history(B, K, steps, times)
        score = prefixes.total + prefixes.fused + self.fusion.finish(states)
        return history.hypotheses(score, prefixes.total, has_scorers=bool(self.scorers))


class _Prefixes(NamedTuple):
    """K prefixes of B utterances, [B, K] each; a slot that holds none has a probability of 0."""

    total: Tensor  # log probability of having left all frames so far
    fused: Tensor  # what the scorers have added
    last: Tensor  # its last token; the blank where it has none
    name: Tensor
    parent_name: Tensor  # of the prefix without its last token

    @classmethod
    def empty(cls, batch_size: int, beam_size: int, blank: int, device: torch.device) -> _Prefixes:
        """The empty prefix in slot 0, nothing in the others."""
        total = torch.full((batch_size, beam_size), NEVER, dtype=torch.float64, device=device)
        total[:, 0] = 0.0
        name, parent_name = no_names(batch_size, beam_size, device)
        name[:, 0] = EMPTY
        return cls(total, torch.zeros_like(total), torch.full_like(name, blank), name, parent_name)


class _Step(NamedTuple):
    """What a round leaves for the history, [B, K] each."""

    pointers: Pointers
    arc: Tensor  # log probability, for the slots as they were, of the last token after the prefix without it
    gained: Tensor  # of each new token; anything where there is none


def _grow(
    prefixes: _Prefixes,
    active: Tensor,
    left: Tensor,
    log_probs: Tensor,
    fusion: Tensor | None,
    blank: int,
    nothing: tuple[Tensor, Tensor],
    threshold: float | None,
) -> tuple[_Prefixes, Tensor, _Step]:
    """A round: every prefix may grow by a token.

    Args:
        active: [B, K] mass that may still grow in this frame.
        left: [B, K] mass that has left the frame.
        log_probs, fusion: [B, K, V] of each next token, and what scorers give for it.
        nothing: names of slots that hold no prefix.

    Returns the K best, of which the total of those that did not grow is what has left; the mass [B, K] that may grow
    in the next round; and what the history needs.
    """
    _, fused, last, name, parent_name = prefixes
    K, V = last.size(1), log_probs.size(2)
    has_parent, parent = find_parents(name, parent_name)
    merged = torch.add(last, parent, alpha=V)
    arc = log_probs.flatten(1).gather(1, merged)
    arriving = torch.where(has_parent, active.gather(1, parent) + arc, NEVER)
    staying_on = arriving + log_probs[..., blank]
    left = torch.logaddexp(left, staying_on)

    grown = active.unsqueeze(2) + log_probs
    grown[..., blank] = NEVER
    grown = grown.flatten(1)
    grown.scatter_(1, torch.where(has_parent, merged, blank), NEVER)  # counted already
    mass = torch.cat([left, grown], 1)
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
    pair = best - K
    is_new = (pair >= 0) & ~is_dead
    parents = torch.where(pair >= 0, pair // V, best)
    tokens = torch.where(is_new, pair % V, -1)
    old_name = name.gather(1, parents)
    after = _Prefixes(
        total=total,
        fused=fused,
        last=torch.where(is_new, tokens, last.gather(1, parents)),
        name=torch.where(is_dead, nothing[0], torch.where(is_new, longer(old_name, tokens), old_name)),
        parent_name=torch.where(
            is_dead, nothing[1], torch.where(is_new, old_name, parent_name.gather(1, parents))
        ),
    )
    active = torch.where(is_new, total, arriving.gather(1, parents).masked_fill(is_dead, NEVER))
    pointers = Pointers(parents, tokens, parent, last, staying_on, left)
    gained = log_probs.flatten(1).gather(1, pair.clamp_min(0))
    return after, active, _Step(pointers, arc, gained)


def _history(batch_size: int, beam_size: int, steps: list[_Step], times: list[int]) -> History:
    """Of all rounds, and the frames that they were in."""
    history = History(batch_size, beam_size)
    if steps:
        pointers, arc, gained = zip(*steps, strict=True)
        pointers = Pointers(*map(torch.stack, zip(*pointers, strict=True)))
        parents, tokens = pointers.followed()
        is_reborn = (tokens >= 0) & (pointers.tokens < 0)
        log_probs = torch.where(is_reborn, torch.stack(arc).gather(2, pointers.parents), torch.stack(gained))
        frames = torch.tensor(times, device=parents.device)[:, None].expand(-1, batch_size)
        history.add(parents, tokens, log_probs, frames)
    return history


def _blank_where(ended: Tensor, log_probs: Tensor, blank: int) -> Tensor:
    """A sure blank in the rows [B] that have ended."""
    sure = torch.full_like(log_probs[0, 0], NEVER)
    sure[blank] = 0.0
    return torch.where(ended[:, None, None], sure, log_probs)


class _Texts:
    """What the predictor makes of the prefixes: joint_predicted [B * K, H], and its state."""

    def __init__(self, model: Transducer, batch_size: int, beam_size: int) -> None:
        self.model, self.shape = model, (batch_size, beam_size)
        state = model.predictor.begin(batch_size * beam_size)
        device = state[0].device
        begin = torch.zeros(batch_size * beam_size, dtype=torch.long, device=device)
        self.predicted, self.state = model.predict(begin, state)
        self.first = beam_size * torch.arange(batch_size, device=device)[:, None]  # slot of each row

    def advance(self, parents: Tensor, tokens: Tensor, frame: Tensor, blank: int) -> Tensor:
        """Prefix k became ``parents[b, k]`` followed by ``tokens[b, k]`` (-1: unchanged).

        Returns the log probability [B, K] of a blank after those that grew, in a frame of joint_encoded [B, H];
        anything for the others.
        """
        K = self.shape[1]
        slots = (parents + self.first).flatten()
        parts = [part.index_select(0, slots) for part in (self.predicted, *self.state)]
        blank_after = torch.zeros_like(parts[0][:, 0])
        at = touched(tokens)
        if len(at):
            token = tokens.take(at)
            old = [part.index_select(0, at) for part in parts]
            predicted, state = self.model.predict(token.clamp_min(0), tuple(old[1:]))
            grows = token[:, None] >= 0
            for part, before, now in zip(parts, old, (predicted, *state), strict=True):
                part.index_copy_(0, at, torch.where(grows, now, before))
            log_probs = self.model.joint(frame.index_select(0, at // K), predicted)
            blank_after.index_copy_(0, at, log_probs[:, blank].to(blank_after))
        self.predicted, self.state = parts[0], tuple(parts[1:])
        return blank_after.view(self.shape)

    def log_probs(self, frame: Tensor) -> Tensor:
        """joint_encoded of a frame [B, H] -> log_probs [B, K, V]."""
        return self.model.joint(frame[:, None], self.predicted.view(*self.shape, -1))
