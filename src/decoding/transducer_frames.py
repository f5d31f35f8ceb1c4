"""What a transducer's joiner says in the next frames, and in which one its beam gets a prefix, as arrays."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from src.decoding.history import LOG_2
from src.decoding.prefix_names import shorter
from src.decoding.settings import NEVER
from src.decoding.transducer_prefixes import Frame, Prefixes


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


def amax(values: NDArray) -> NDArray:
    """The largest ones along the last dimension; NumPy takes longer, where there are many."""
    return torch.from_numpy(values).amax(-1).numpy()


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
