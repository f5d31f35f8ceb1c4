"""The prefixes of a transducer's beam search, and what a frame makes of them: arrays in, arrays out.

A path through the lattice leaves every frame by a blank, after at most S tokens in it; only with S = 1 does a token
take the whole frame, and no blank comes after it. In each of S rounds every prefix may grow by one token; a prefix that
others grow into receives their mass, and what has left the frame is added up over the rounds. Unpruned, with S at least
a text's length and above 1, that is the transducer's forward recursion.

The arrays are NumPy's: a round is many operations on a few numbers, each of which takes PyTorch several times as long.
Slots of all utterances are numbered through, so that slot k of utterance b is K b + k.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from src.decoding.history import LOG_2, History, Pointers
from src.decoding.prefix_names import BASE, EMPTY, shorter
from src.decoding.settings import NEVER

APART = 2**40 + 1  # between the names of utterances: no prefix is another one's


class Prefixes(NamedTuple):
    """K prefixes of B utterances, [B, K] each; a slot that holds none has a probability of 0."""

    total: NDArray  # log probability of having left all frames so far
    fused: NDArray  # what the scorers have added
    name: NDArray  # equal for equal prefixes of an utterance alone
    last: NDArray  # the last token (the blank: none)

    @classmethod
    def empty(cls, batch_size: int, beam_size: int, blank: int) -> Prefixes:
        """The empty prefix in slot 0, nothing in the others."""
        total = np.full((batch_size, beam_size), NEVER)
        total[:, 0] = 0.0
        name = no_names(batch_size, beam_size)
        name[:, 0] = EMPTY + APART * np.arange(batch_size)
        return cls(total, np.zeros_like(total), name, np.full_like(name, blank))

    def left_by(self, blank: NDArray, grew: NDArray) -> Prefixes:
        """Those that grew [B, K] have left the frame by a blank, too, with a log probability [B, K]."""
        return self._replace(total=self.total + np.where(grew, blank, 0.0))


def longer(name: NDArray, token: NDArray) -> NDArray:
    """As ``src.decoding.prefix_names.longer``, of arrays."""
    return token + 1 + name * BASE


def no_names(batch_size: int, beam_size: int) -> NDArray:
    """Names [B, K] for slots that hold no prefix, all different."""
    return -1 - np.arange(batch_size * beam_size).reshape(batch_size, beam_size)


class Frame(NamedTuple):
    """What the joiner says after each prefix in one frame of each utterance."""

    parent: NDArray  # [B, K] slot of the prefix without its last token; any where the beam has it not
    arc: (
        NDArray  # [B, K] log probability of the last token after that prefix; NEVER where the beam has it not
    )
    blank: NDArray  # [B, K] log probability of the blank
    leave: NDArray  # [B, K] of leaving the frame after a token
    tokens: NDArray  # [B, K, V] of the tokens; NEVER for the blank, and for those that lead to another prefix


class Frames:
    """What the joiner says after each of N texts in the next W frames of its utterance, and in P frames before.

    Args:
        log_probs: [N, P + W, V] float32; changed in place. What is no number is no probability.
        of: [B, K] which of the texts each prefix is.
        prefixes: the prefixes.
        blank: the blank's token id.
        past: P: 1 where a blank leaves a frame after its tokens, 0 where a token takes its frame.

    Attributes:
        parent, arc, blank: as in ``Frame``, with the next frames as a first dimension, W.
        blank_before: [B, K] log P of the blank in the last frame; 0 where P is.
    """

    def __init__(self, log_probs: NDArray, of: NDArray, prefixes: Prefixes, blank: int, past: int) -> None:
        name, self.last, self.past = prefixes.name, prefixes.last, past
        _, width, V = log_probs.shape
        blanks = log_probs[..., blank].astype(float)
        log_probs[..., blank] = NEVER
        self.most = amax(log_probs)
        if np.isnan(self.most.max() + blanks.max()):
            for part in (log_probs, blanks):
                part[np.isnan(part)] = NEVER
            self.most = log_probs.max(2)
        self.flat = log_probs.reshape(-1, V)
        rows = of * width + np.arange(width)[:, None, None]  # [P + W, B, K] of ``flat``
        blanks = blanks.take(rows)
        self.blank_before, self.blank, self.rows = blanks[:past].sum(0), blanks[past:], rows[past:]

        order = name.argsort(None)
        wanted = shorter(name, self.last)
        place = np.minimum(name.take(order).searchsorted(wanted), name.size - 1)
        self.parent = order.take(place)
        self.has_parent = name.take(self.parent) == wanted
        # By its parent's text in the next frames.
        places = V * self.rows.reshape(width - past, -1).take(self.parent, 1) + self.last
        self.arc = np.where(self.has_parent, self.flat.take(places).astype(float), NEVER)

    def best(self) -> NDArray:
        """[W, B, K] at least the log P of the best token that leads to no other prefix."""
        best = self.most.take(self.rows)
        flat = best.reshape(len(best), -1)
        leads_there = self.has_parent & (self.arc == flat.take(self.parent, 1))
        w, slot = np.nonzero(leads_there.reshape(flat.shape))
        if len(w):  # then it is the second best one
            parent, last = self.parent.take(slot), self.last.take(slot)
            others = self.flat.take(self.rows.reshape(flat.shape)[w, parent], 0)
            others[np.arange(len(w)), last] = NEVER
            flat[w, parent] = others.max(1)
        return best.astype(float)

    def at(self, offset: NDArray, active: NDArray) -> Frame:
        """One of the next frames of each utterance, [B], where the prefixes have a mass [B, K]."""
        tokens = self.flat.take(pick(self.rows, offset), 0)
        is_grown_into = self.has_parent & (active > NEVER)
        slot, token = self.parent[is_grown_into], self.last[is_grown_into]
        tokens.reshape(-1, tokens.shape[2])[slot, token] = NEVER
        arc = np.where(is_grown_into, pick(self.arc, offset), NEVER)
        blank = pick(self.blank, offset)
        leave = blank if self.past else np.zeros_like(blank)
        return Frame(self.parent, arc, blank, leave, tokens)


def pick(part: NDArray, offset: NDArray) -> NDArray:
    """[W, B, K] at a frame [B] of each utterance: [B, K]."""
    return part[offset, np.arange(len(offset))]


def next_change(
    prefixes: Prefixes, frames: Frames, points: NDArray | None, threshold: float | None, left: NDArray
) -> tuple[NDArray, NDArray]:
    """The first frame [B] of each utterance in which its beam gets a prefix, or else the last one, and the mass [B, K]
    of the prefixes before it. With several frames a token takes its frame.

    Until then blanks and tokens that lead from one prefix of the beam to another are all that happens, and prefixes
    that fall below the threshold, which are not grown into any more. A frame in which such a token is what made its
    prefix probable is a change, too: it is that token's time. Frames without a change may be returned as well
    (``best`` is a bound): ``grow`` makes of them what is said here.

    Args:
        points: [B, K, V] what scorers give for each next token.
        left: [B] frames that the utterance still has.
    """
    parent, arc, blank = frames.parent, frames.arc, frames.blank
    if len(blank) == 1:
        return np.zeros(len(left), int), prefixes.total
    masses, arriving = np.empty((len(blank) + 1, *parent.shape)), np.empty(arc.shape)
    masses[0], is_dead = prefixes.total, prefixes.total == NEVER
    staying = np.empty_like(arriving)
    for w in range(len(blank)):
        np.add(masses[w].take(parent), arc[w], out=arriving[w])
        np.add(masses[w], blank[w], out=staying[w])
        after = np.logaddexp(staying[w], arriving[w], out=masses[w + 1])
        if threshold is not None:
            rank = after if points is None else after + prefixes.fused
            is_dead |= rank < np.maximum.reduce(rank, 1, keepdims=True) - threshold
            after[is_dead] = NEVER
    before, after = masses[:-1], masses[1:]
    grown, is_reborn = before + frames.best(), arriving > staying
    if points is not None:
        after, arriving = after + prefixes.fused, arriving + prefixes.fused
        grown += prefixes.fused + amax(points)
    least = np.minimum.reduce(after, 2, keepdims=True)
    if threshold is not None:
        limit = np.maximum.reduce(after, 2, keepdims=True) - threshold
        least = np.maximum(least, limit)
        is_reborn &= arriving >= limit - LOG_2
    is_new = grown >= least
    changes = (is_new | is_reborn).any(2)
    changes[-1] = True
    offset = np.minimum(changes.argmax(0), np.maximum(left - 1, 0))
    return offset, pick(before, offset)


class Step(NamedTuple):
    """What a round leaves for the history, [B, K] each: ``Pointers``, and masses."""

    parents: NDArray
    tokens: NDArray
    merged_from: NDArray
    last: NDArray
    arriving: NDArray
    staying: NDArray
    active: NDArray  # the mass that could grow, for the slots as they were
    grown_into: NDArray  # the part of it that grew into another prefix of the beam: this one
    total: NDArray  # the mass of those that are new


def grow(
    prefixes: Prefixes,
    active: NDArray,
    left: NDArray,
    frame: Frame,
    points: NDArray | None,
    blank: int,
    threshold: float | None,
) -> tuple[Prefixes, NDArray, Step]:
    """A round: every prefix may grow by a token.

    Args:
        active: [B, K] mass that may still grow in this frame.
        left: [B, K] mass that has left the frame.
        frame: one frame of each utterance.
        points: [B, K, V] what scorers give for each next token.

    Returns the K best, of which the total of those that did not grow is what has left; the mass [B, K] that may grow
    in the next round; and what the history needs.
    """
    _, fused, name, last = prefixes
    (B, K, V), first = frame.tokens.shape, np.arange(0, name.size, name.shape[1])[:, None]
    arriving = active.take(frame.parent) + frame.arc
    staying_on = arriving + frame.leave
    left = np.logaddexp(left, staying_on)

    # In the place of the blank stands what does not grow.
    mass = active[..., None] + frame.tokens
    mass[..., blank] = left
    if points is None:
        total, best = topk(mass, K)
        rank = total
    else:
        added = fused[..., None] + points
        added[..., blank] = fused
        rank, best = topk(mass + added, K)
        places = best + V * first
        total, fused = mass.take(places), added.take(places)
    if threshold is not None:
        total = np.where(rank < rank[:, :1] - threshold, NEVER, total)
    is_dead = total == NEVER
    source = best // V
    tokens, parents = best - V * source, source + first
    is_new = (tokens != blank) & ~is_dead
    tokens = np.where(is_new, tokens, -1)
    old = name.take(parents)
    name = np.where(is_new, longer(old, tokens), old)
    if is_dead.any():
        name = np.where(is_dead, no_names(B, K), name)
    step = Step(parents, tokens, frame.parent, last, staying_on, left, active, arriving, total)
    last = np.where(is_new, tokens, last.take(parents))
    may_grow = np.where(is_new, total, np.where(is_dead, NEVER, arriving.take(parents)))
    return Prefixes(total, fused, name, last), may_grow, step


def amax(values: NDArray) -> NDArray:
    """The largest ones along the last dimension; NumPy takes longer, where there are many."""
    return torch.from_numpy(values).amax(-1).numpy()


def topk(values: NDArray, count: int) -> tuple[NDArray, NDArray]:
    """values [B, ...] -> of each row the largest ones and their places, [B, count] each, best first. A single one is
    the first of equals, as greedy's choice is."""
    flat = torch.from_numpy(values).flatten(1)
    best = flat.max(1, keepdim=True) if count == 1 else flat.topk(count, 1)
    return best.values.numpy(), best.indices.numpy()


def history_of(batch_size: int, beam_size: int, steps: list[Step], times: list[NDArray]) -> History:
    """Of all rounds, and the frames [B] that they were in."""
    history = History(batch_size, beam_size)
    if steps:
        *pointers, active, grown_into, total = (
            torch.from_numpy(np.stack(part)) for part in zip(*steps, strict=True)
        )
        pointers = Pointers(*pointers)
        pointers = pointers._replace(
            parents=pointers.parents % beam_size, merged_from=pointers.merged_from % beam_size
        )
        parents, tokens = pointers.followed()
        # A token's log probability is what its arc added to the mass.
        merged = (grown_into - active.gather(2, pointers.merged_from)).gather(2, pointers.parents)
        grown = total - active.gather(2, pointers.parents)
        log_probs = torch.where(pointers.tokens < 0, merged, grown)
        history.add(parents, tokens, log_probs, torch.from_numpy(np.stack(times)).unsqueeze(2))
    return history
