"""Frames that decide nothing, folded: where one token is surely heard, a search needs no step.

After a sure frame of a token (not the blank) every prefix of the beam ends in it. What the sure frames after that add
is then the same for all prefixes of the utterance: the tokens that they spell, collapsed by CTC's rules, and their
probability; nothing merges, and nothing is pruned. So of a run of sure frames only the first is a step, and sure
blanks never are.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from src.decoding.prefix_names import BASE
from src.decoding.settings import NEVER


class Folded(NamedTuple):
    """What the frames that were folded between two steps do to every prefix of their utterances, [B, 1] each."""

    log_prob: Tensor  # of their tokens and blanks
    is_empty: Tensor  # whether there were none
    to_blank: Tensor  # log of 1 where the last one is a blank, else of 0
    to_token: Tensor  # where it is a token
    last: Tensor  # the last token that they add; -1: none
    name: Tensor  # of the tokens that they add, as ``prefix_names`` has it
    shift: Tensor  # what a name is multiplied with to make room for that
    tokens: Tensor  # [B, L] these tokens, and -1


class Spelled(NamedTuple):
    """The tokens that folded frames add, [N] each: utterance, token id, log posterior and frame."""

    rows: Tensor
    tokens: Tensor
    log_probs: Tensor
    times: Tensor


class Folding:
    """Which frames of a piece are steps, and what the others add.

    Args:
        log_probs: [B, T, V].
        inside: [B, T] which frames belong to the utterance.
        blank: its token id.
        threshold: least log probability of a sure token.
        longest: most tokens, L, that are added between two steps; None: any number.
        first: [V] tokens that must come with a step, not after one; None: no token must.
        multiple: T' is a multiple of it, as T must be.

    Attributes:
        times: [B, T'] the frames that are steps.
        is_step: [B, T'] False: the utterance has no more steps.
        log_probs: [B, T', V] of the steps; where a token is sure, others are impossible.
        folded: the attributes of ``Folded`` as [B, T' + 1] (``tokens``: [B, T' + 1, L]), before the first step and
            after each one.
        spelled: what the folded frames add.
    """

    def __init__(
        self,
        log_probs: Tensor,
        inside: Tensor,
        blank: int,
        threshold: float,
        longest: int | None = None,
        first: Tensor | None = None,
        multiple: int = 1,
    ) -> None:
        B, T, V = log_probs.shape
        value, token = log_probs.max(-1)
        sure = inside & (value >= threshold)
        is_blank = sure & (token == blank)
        # The latest frame before this one that is not a sure blank.
        frame = torch.arange(T, device=inside.device).expand(B, T)
        latest = torch.where(is_blank, -1, frame).cummax(1).values if T else frame
        latest = torch.cat([torch.full_like(latest[:, :1], -1), latest[:, :-1]], 1)
        goes_on = sure & ~is_blank & (latest >= 0) & sure.gather(1, latest.clamp_min(0))
        adds = goes_on & (token != token.roll(1, 1))
        is_step = inside & ~is_blank & ~goes_on
        if first is not None:
            is_step = is_step | (adds & first[token])
        if longest is not None:
            is_step = is_step | (adds & (_since(is_step, adds) % (longest + 1) == 0))
        adds = adds & ~is_step
        count = int(is_step.sum(1).max()) if is_step.numel() else 0
        count += -count % multiple
        self.times = torch.argsort((~is_step).byte(), dim=1, stable=True)[:, :count]
        self.is_step = is_step.gather(1, self.times)
        steps = log_probs.gather(1, self.times.unsqueeze(2).expand(-1, -1, V))
        others = torch.arange(V, device=token.device) != token.gather(1, self.times).unsqueeze(2)
        self.log_probs = steps.masked_fill(sure.gather(1, self.times).unsqueeze(2) & others, NEVER)

        # After which step a frame comes; 0: before the first.
        after = is_step.cumsum(1)
        is_folded = inside & ~is_step

        def summed(part: Tensor) -> Tensor:
            return part.new_zeros(B, count + 1).scatter_add_(1, after, part)

        log_prob = summed(torch.where(is_folded, value, 0.0))
        ends = is_folded & ~torch.cat([is_folded[:, 1:], torch.zeros_like(is_folded[:, :1])], 1)
        kind = summed(ends * (1 + is_blank.long()))  # 0: no frames, 1: a token at the end, 2: a blank
        nothing = torch.where(kind > 0, NEVER, 0.0)
        rows, times = adds.nonzero().unbind(1)
        position = _since(is_step, adds)[rows, times] - 1
        self.spelled = Spelled(rows, token[rows, times], value[rows, times], times)
        length = summed(adds.long())
        powers = torch.full((T + 1,), BASE, device=token.device)
        powers[0] = 1
        powers = powers.cumprod(0)
        place = rows, after[rows, times]
        left = length[place] - 1 - position
        name = torch.zeros_like(length)
        name.index_put_(place, (1 + self.spelled.tokens) * powers[left], accumulate=True)
        last = torch.full_like(length, -1)
        is_last = left == 0
        last[place[0][is_last], place[1][is_last]] = self.spelled.tokens[is_last]
        tokens = token.new_full((B, count + 1, longest or 0), -1)
        if longest is not None:
            tokens[(*place, position)] = self.spelled.tokens
        self.folded = Folded(
            log_prob,
            kind == 0,
            nothing.masked_fill(kind == 2, 0.0),
            nothing.masked_fill(kind == 1, 0.0),
            last,
            name,
            powers[length],
            tokens,
        )


def _since(is_step: Tensor, adds: Tensor) -> Tensor:
    """[B, T] each -> how many frames have added a token since the last step, this one included."""
    total = adds.cumsum(1)
    return total - torch.where(is_step, total, 0).cummax(1).values if total.size(1) else total
