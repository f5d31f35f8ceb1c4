"""The prefixes of a transducer's beam search, and what a frame makes of them: tensors in, tensors out.

A path through the lattice leaves every frame by a blank, after at most S tokens in it. In each of S rounds every prefix
may grow by one token; a prefix that others grow into receives their mass, and what has left the frame by a blank is
added up over the rounds. Unpruned, with S at least a text's length, that is the transducer's forward recursion.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from src.decoding.history import LOG_2, History, Pointers
from src.decoding.prefix_names import EMPTY, find_parents, longer, no_names
from src.decoding.settings import NEVER


class Prefixes(NamedTuple):
    """K prefixes of B utterances; a slot that holds none has a probability of 0."""

    total: Tensor  # [B, K] log probability of having left all frames so far
    fused: Tensor  # [B, K] what the scorers have added
    ids: Tensor  # [2, B, K] its name, and its last token (the blank: none)

    @classmethod
    def empty(cls, batch_size: int, beam_size: int, blank: int, device: torch.device) -> Prefixes:
        """The empty prefix in slot 0, nothing in the others."""
        total = torch.full((batch_size, beam_size), NEVER, dtype=torch.float64, device=device)
        total[:, 0] = 0.0
        name = no_names(batch_size, beam_size, device)
        name[:, 0] = EMPTY
        ids = torch.stack([name, torch.full_like(name, blank)])
        return cls(total, torch.zeros_like(total), ids)

    def left_by(self, blank: Tensor, grew: Tensor | None) -> Prefixes:
        """Those that grew [B, K] (None: none) have left the frame by a blank, too, with a log probability [B, K]."""
        if grew is None:
            return self
        return self._replace(total=self.total + torch.where(grew, blank, 0.0))


class Nothing:
    """What stands for nothing: a mass of 0, no token, and the ids of slots without a prefix."""

    def __init__(self, prefixes: Prefixes, blank: int) -> None:
        ids, self.blank = prefixes.ids, blank
        self.mass, self.token = prefixes.total.new_tensor(NEVER), ids.new_tensor(-1)
        self.ids = torch.stack([no_names(*ids.shape[1:], ids.device), ids[1]])


class Frame(NamedTuple):
    """What the joiner says after each prefix in one frame of each utterance."""

    parent: Tensor  # [B, K] slot of the prefix without its last token; any where the beam has it not
    arc: Tensor  # [B, K] log probability of the last token after that prefix; NEVER where the beam has it not
    blank: Tensor  # [B, K] log probability of the blank
    tokens: Tensor  # [B, K, V] of the tokens; NEVER for the blank, and for those that lead to another prefix


class Frames:
    """What the joiner says after each of N texts in the last frame and the next W of its utterance.

    Args:
        tokens: [N, 1 + W, V] log P of the tokens; NEVER for the blank.
        blank: [N, 1 + W] log P of the blank.
        of: [B * K] which of the texts each prefix is.
        prefixes: the prefixes.
        nothing: what stands for nothing.

    Attributes:
        parent, arc, blank: as in ``Frame``, with the next frames as a last dimension, W.
        blank_before: [B, K] log P of the blank in the last frame.
    """

    def __init__(
        self, tokens: Tensor, blank: Tensor, of: Tensor, prefixes: Prefixes, nothing: Nothing
    ) -> None:
        name, last = prefixes.ids.unbind()
        shape, (_, width, V) = name.shape, tokens.shape
        self.has_parent, self.parent = find_parents(name, last)
        self.tokens, self.last, self.nothing = tokens, last, nothing
        self.first = (of * width).view(shape)  # [B, K] row of tokens [N * (1 + W), V]
        self.frames = torch.arange(1, width, device=of.device)
        rows = self.first.gather(1, self.parent).unsqueeze(2) + self.frames
        arc = tokens.take(torch.add(last.unsqueeze(2), rows, alpha=V)).double()
        self.arc = torch.where(self.has_parent.unsqueeze(2), arc, nothing.mass)
        blanks = blank.index_select(0, of).view(*shape, width)
        self.blank_before, self.blank = blanks[..., 0], blanks[..., 1:]

    def best(self) -> Tensor:
        """[B, K, W] at least the log P of the best token that leads to no other prefix."""
        return self.tokens.amax(2).double().take(self.first.unsqueeze(2) + self.frames)

    def at(self, offset: Tensor) -> Frame:
        """One of the next frames of each utterance, [B]."""
        rows = self.first + (offset + 1).unsqueeze(1)
        tokens = self.tokens.flatten(0, 1).index_select(0, rows.flatten()).view(*rows.shape, -1)
        merged = torch.add(self.last, self.parent, alpha=tokens.size(2))
        # In the place of the first one's blank there is nothing anyway.
        merged = torch.where(self.has_parent, merged, self.nothing.blank)
        tokens.flatten(1).scatter_(1, merged, NEVER)
        return Frame(self.parent, pick(self.arc, offset), pick(self.blank, offset), tokens)


def pick(part: Tensor, offset: Tensor) -> Tensor:
    """[B, K, W] at a frame [B] of each utterance: [B, K]."""
    return part.gather(2, offset.view(-1, 1, 1).expand(-1, part.size(1), 1)).squeeze(2)


def next_change(
    prefixes: Prefixes, frames: Frames, fusion: Tensor | None, threshold: float | None
) -> tuple[Tensor, Tensor]:
    """The first frame [B] of each utterance in which its beam gets or loses a prefix, or else the last one, and the
    mass [B, K] of the prefixes before it.

    Until then blanks and tokens that lead from one prefix of the beam to another are all that happens. A frame in
    which such a token is what made its prefix probable is a change, too: it is that token's time. Frames without a
    change may be returned as well (``best`` is a bound): ``grow`` makes of them what is said here.
    """
    parent, arc, blank = frames.parent, frames.arc, frames.blank
    if blank.size(2) == 1:
        return torch.zeros_like(parent[:, 0]), prefixes.total
    leaving = zip(blank.unbind(2), (arc + blank).unbind(2), strict=True)
    after, arriving = [prefixes.total], []
    for staying, moving in leaving:
        arriving.append(after[-1].gather(1, parent) + moving)
        after.append(torch.logaddexp(after[-1] + staying, arriving[-1]))
    masses, arriving = torch.stack(after, 2), torch.stack(arriving, 2)
    before, after = masses[..., :-1], masses[..., 1:]
    if fusion is None:
        grown, stayed = before + frames.best(), after
    else:
        fused = prefixes.fused.unsqueeze(2)
        best = frames.best() + fusion.amax(2, keepdim=True)
        grown, stayed = before + fused + best, after + fused
    changes = grown >= stayed.amin(1, keepdim=True)
    if threshold is not None:
        limit = stayed.amax(1, keepdim=True) - threshold
        changes = (changes & (grown >= limit)) | ((stayed < limit) & (after > NEVER))
    changes = (changes | (arriving > after - LOG_2)).any(1)
    changes[:, -1] = True
    offset = changes.byte().argmax(1)
    return offset, pick(before, offset)


class Step(NamedTuple):
    """What a round leaves for the history, [B, K] each."""

    pointers: Pointers
    active: Tensor  # the mass that could grow, for the slots as they were
    arriving: Tensor  # the part of it that grew into another prefix of the beam: this one
    total: Tensor  # the mass of those that are new


def grow(
    prefixes: Prefixes,
    active: Tensor,
    left: Tensor,
    frame: Frame,
    fusion: Tensor | None,
    nothing: Nothing,
    threshold: float | None,
) -> tuple[Prefixes, Tensor, Step]:
    """A round: every prefix may grow by a token.

    Args:
        active: [B, K] mass that may still grow in this frame.
        left: [B, K] mass that has left the frame.
        frame: one frame of each utterance.
        fusion: [B, K, V] what scorers give for each next token.

    Returns the K best, of which the total of those that did not grow is what has left; the mass [B, K] that may grow
    in the next round; and what the history needs.
    """
    _, fused, ids = prefixes
    parent, arc, blank, tokens = frame
    K, V = tokens.shape[1:]
    arriving = active.gather(1, parent) + arc
    staying_on = arriving + blank
    left = torch.logaddexp(left, staying_on)

    # In the place of the blank stands what does not grow.
    mass = active.unsqueeze(2) + tokens
    mass[..., nothing.blank] = left
    if fusion is None:
        total, best = topk(mass, K)
        rank = total
    else:
        added = fused.unsqueeze(2) + fusion
        added[..., nothing.blank] = fused
        rank, best = topk(mass + added, K)
        total, fused = mass.flatten(1).gather(1, best), added.flatten(1).gather(1, best)
    if threshold is not None:
        total = total.masked_fill(rank < rank[:, :1] - threshold, NEVER)
    is_dead = total == NEVER
    parents, token = best // V, best % V
    is_new = (token != nothing.blank) & ~is_dead
    token = torch.where(is_new, token, nothing.token)
    old = ids.gather(2, parents.expand_as(ids))
    new = torch.stack([longer(old[0], token), token])
    step = Step(Pointers(parents, token, parent, ids[1], staying_on, left), active, arriving, total)
    ids = torch.where(is_dead, nothing.ids, torch.where(is_new, new, old))
    active = torch.where(is_new, total, arriving.gather(1, parents).masked_fill(is_dead, NEVER))
    return Prefixes(total, fused, ids), active, step


def topk(values: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """values [B, ...] -> of each row the largest ones and their places, [B, count] each, best first. A single one is
    the first of equals, as greedy's choice is."""
    values = values.flatten(1)
    return values.max(1, keepdim=True) if count == 1 else values.topk(count, 1)


def history_of(batch_size: int, beam_size: int, steps: list[Step], times: list[Tensor]) -> History:
    """Of all rounds, and the frames [B] that they were in."""
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
        history.add(parents, tokens, log_probs, torch.stack(times).unsqueeze(2))
    return history
