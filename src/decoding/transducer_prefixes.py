"""The prefixes of a transducer's beam search, and what a round makes of them: arrays in, arrays out.

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

from src.decoding.history import History, Pointers
from src.decoding.prefix_names import BASE, EMPTY
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
