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
        nothing = _Nothing(prefixes)
        texts = _Texts(model, B, K)
        states = self.fusion.start(B, K, device)
        ended = (torch.arange(T, device=device)[:, None] >= encoded_lengths)[:, :, None, None].unbind()
        # Until then no row is at its end; asking costs nothing on a CPU alone.
        first_end = int(encoded_lengths.min()) if is_cheap_to_ask(device) else 0
        steps, times = [], []
        for t, frame in enumerate(joint_encoded.unsqueeze(2).unbind(1)):
            active = prefixes.total
            for symbol in range(self.max_symbols_per_frame):
                log_probs = texts.log_probs(frame)
                require_blank_in_vocabulary(self.blank, log_probs)
                if t >= first_end:
                    log_probs = torch.where(ended[t], _sure_blank(log_probs, self.blank), log_probs)
                if symbol == 0:
                    left = active + log_probs[..., self.blank]
                fusion = self.fusion.points(states, log_probs.size(2))
                prefixes, active, step = _grow(
                    prefixes, active, left, log_probs, fusion, self.blank, nothing, self.beam_threshold
                )
                steps.append(step)
                times.append(t)
                parents, tokens = step.pointers.parents, step.pointers.tokens
                left = prefixes.total + texts.advance(parents, tokens, frame, self.blank)
                states = self.fusion.advance(states, parents, tokens)
                if self.max_symbols_per_frame > 1 and is_cheap_to_ask(device) and not (active > NEVER).any():
                    break
            prefixes = prefixes._replace(total=left)
        history = _history(B, K, steps, times)
        score = prefixes.total + prefixes.fused + self.fusion.finish(states)
        return history.hypotheses(score, prefixes.total, has_scorers=bool(self.scorers))


class _Prefixes(NamedTuple):
    """K prefixes of B utterances; a slot that holds none has a probability of 0."""

    total: Tensor  # [B, K] log probability of having left all frames so far
    fused: Tensor  # [B, K] what the scorers have added
    ids: Tensor  # [3, B, K] its name, that of the prefix without its last token, and that token (the blank: none)

    @classmethod
    def empty(cls, batch_size: int, beam_size: int, blank: int, device: torch.device) -> _Prefixes:
        """The empty prefix in slot 0, nothing in the others."""
        total = torch.full((batch_size, beam_size), NEVER, dtype=torch.float64, device=device)
        total[:, 0] = 0.0
        name, parent_name = no_names(batch_size, beam_size, device)
        name[:, 0] = EMPTY
        return cls(
            total,
            torch.zeros_like(total),
            torch.stack([name, parent_name, torch.full_like(name, blank)]),
        )


class _Nothing:
    """What stands for nothing: a mass of 0, no token, and the ids of a slot without a prefix."""

    def __init__(self, prefixes: _Prefixes) -> None:
        ids = prefixes.ids
        self.mass, self.token = prefixes.total.new_tensor(NEVER), ids.new_tensor(-1)
        self.ids = torch.stack([*no_names(*ids.shape[1:], ids.device), ids[2]])


class _Step(NamedTuple):
    """What a round leaves for the history, [B, K] each."""

    pointers: Pointers
    active: Tensor  # the mass that could grow, for the slots as they were
    arriving: Tensor  # the part of it that grew into another prefix of the beam: this one
    total: Tensor  # the mass of those that are new


def _grow(
    prefixes: _Prefixes,
    active: Tensor,
    left: Tensor,
    log_probs: Tensor,
    fusion: Tensor | None,
    blank: int,
    nothing: _Nothing,
    threshold: float | None,
) -> tuple[_Prefixes, Tensor, _Step]:
    """A round: every prefix may grow by a token.

    Args:
        active: [B, K] mass that may still grow in this frame.
        left: [B, K] mass that has left the frame.
        log_probs, fusion: [B, K, V] of each next token, and what scorers give for it.

    Returns the K best, of which the total of those that did not grow is what has left; the mass [B, K] that may grow
    in the next round; and what the history needs.
    """
    _, fused, ids = prefixes
    name, parent_name, last = ids.unbind()
    K, V = last.size(1), log_probs.size(2)
    flat = log_probs.flatten(1)
    has_parent, parent = find_parents(name, parent_name)
    merged = torch.add(last, parent, alpha=V)
    arriving = active.gather(1, parent) + flat.gather(1, merged)
    arriving = torch.where(has_parent, arriving, nothing.mass)
    staying_on = arriving + log_probs[..., blank]
    left = torch.logaddexp(left, staying_on)

    grown = active.unsqueeze(2) + log_probs
    grown[..., blank] = NEVER
    grown = grown.flatten(1)
    grown.scatter_(1, merged.masked_fill_(~has_parent, blank), NEVER)  # counted already
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
    is_pair = pair >= 0
    is_new = is_pair & ~is_dead
    parents = torch.where(is_pair, pair // V, best)
    tokens = torch.where(is_new, pair % V, nothing.token)
    old = ids.gather(2, parents.expand_as(ids))
    new = torch.stack([longer(old[0], tokens), old[0], tokens])
    ids = torch.where(is_new, new, old)
    ids = torch.where(is_dead, nothing.ids, ids)
    step = _Step(Pointers(parents, tokens, parent, last, staying_on, left), active, arriving, total)
    active = torch.where(is_new, total, arriving.gather(1, parents).masked_fill(is_dead, NEVER))
    return _Prefixes(total, fused, ids), active, step


def _history(batch_size: int, beam_size: int, steps: list[_Step], times: list[int]) -> History:
    """Of all rounds, and the frames that they were in."""
    history = History(batch_size, beam_size)
    if steps:
        pointers, *masses = zip(*steps, strict=True)
        pointers = Pointers(*map(torch.stack, zip(*pointers, strict=True)))
        active, arriving, total = map(torch.stack, masses)
        parents, tokens = pointers.followed()
        # A token's log probability is what its arc added to the mass.
        merged = (arriving - active.gather(2, pointers.merged_from)).gather(2, pointers.parents)
        grown = total - active.gather(2, pointers.parents)
        log_probs = torch.where(pointers.tokens < 0, merged, grown)
        frames = torch.tensor(times, device=parents.device)[:, None].expand(-1, batch_size)
        history.add(parents, tokens, log_probs, frames)
    return history


def _sure_blank(log_probs: Tensor, blank: int) -> Tensor:
    """[V]: what is beyond an utterance's end."""
    sure = torch.full_like(log_probs[0, 0], NEVER)
    sure[blank] = 0.0
    return sure


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

        Returns the log probability [B, K] of a blank after those that grew, in a frame [B, 1, H]; 0 for the others.
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
            log_probs = self.model.joint(frame.flatten(0, 1).index_select(0, at // K), predicted)
            blank_after[at] = torch.where(grows[:, 0], log_probs[:, blank].to(blank_after), 0.0)
        self.predicted, self.state = parts[0], tuple(parts[1:])
        return blank_after.view(self.shape)

    def log_probs(self, frame: Tensor) -> Tensor:
        """joint_encoded of a frame [B, 1, H] -> log_probs [B, K, V]."""
        return self.model.joint(frame, self.predicted.view(*self.shape, -1))
