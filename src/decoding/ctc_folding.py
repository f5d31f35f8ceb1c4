"""Frames that decide nothing, folded: where one token is surely heard, a search needs no step.

After a sure frame of a token (not the blank) every prefix of the beam ends in it. What the sure frames after that add
is then the same for all prefixes of the utterance: the tokens that they spell, collapsed by CTC's rules, and their
probability; nothing merges, and nothing is pruned. So of a run of sure frames only the first is a step, and sure
blanks never are.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
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
        needs_step: [V] which tokens must come with a step, not after one; None: no token must.
        multiple: T' is a multiple of it, as T must be.

    Attributes:
        times: [B, T'] the frames that are steps.
        is_step: [B, T'] False: the utterance has no more steps.
        log_probs: [B, T', V] of the steps; where a token is sure, others are impossible.
        folded: the attributes of ``Folded`` as [B, T' + 1] (``tokens``: [B, T' + 1, L]), before the first step and
            after each one.
        spelled: what the folded frames add.

    Example: sure of "a", "a", a blank, "b"; then in doubt; then sure of a blank
        >>> a, b, blank, doubt = [0.05, 0.9, 0.05], [0.05, 0.05, 0.9], [0.9, 0.05, 0.05], [0.4, 0.3, 0.3]
        >>> posteriors = torch.tensor([[a, a, blank, b, doubt, blank]], dtype=torch.float64)
        >>> inside = torch.ones(1, 6, dtype=torch.bool)
        >>> folding = Folding(posteriors.log(), inside, blank=0, threshold=-0.2)  # sure: from exp(-0.2) = 0.82 on
        >>> folding.times.tolist()  # the first "a" and the doubt are steps
        [[0, 4]]
        >>> folding.spelled.tokens.tolist(), folding.spelled.times.tolist()  # frames 1 to 3 add the "b" to all prefixes
        ([2], [3])
        >>> folding.folded.log_prob.exp().round(decimals=3).tolist()  # none before, three after it, one at the end
        [[1.0, 0.729, 0.9]]
    """

    def __init__(
        self,
        log_probs: Tensor,
        inside: Tensor,
        blank: int,
        threshold: float,
        longest: int | None = None,
        needs_step: Tensor | None = None,
        multiple: int = 1,
    ) -> None:
        B, T, V = log_probs.shape
        value, token = log_probs.max(-1)
        sure = inside & (value >= threshold)
        is_step, adds = _steps(sure, inside, token, blank, longest, needs_step)
        count = int(is_step.sum(1).max()) if is_step.numel() else 0
        count += -count % multiple
        self.times = torch.argsort((~is_step).byte(), dim=1, stable=True)[:, :count]
        self.is_step = is_step.gather(1, self.times)
        steps = log_probs.gather(1, self.times.unsqueeze(2).expand(-1, -1, V))
        others = torch.arange(V, device=token.device) != token.gather(1, self.times).unsqueeze(2)
        self.log_probs = steps.masked_fill(sure.gather(1, self.times).unsqueeze(2) & others, NEVER)

        after = is_step.cumsum(1)  # which step a frame comes after; 0: before the first
        is_folded = inside & ~is_step

        def summed(part: Tensor) -> Tensor:
            return part.new_zeros(B, count + 1).scatter_add_(1, after, part)

        is_end = is_folded & ~F.pad(is_folded[:, 1:], (0, 1))
        # 0: no frames, 1: a token at the end, 2: a blank
        ends = summed(is_end * (1 + (token == blank).long()))
        length = summed(adds.long())
        rows, times = adds.nonzero().unbind(1)
        added = token[rows, times]
        self.spelled = Spelled(rows, added, value[rows, times], times)
        position = _since(is_step, adds)[rows, times] - 1
        place = rows, after[rows, times]
        to_come = length[place] - 1 - position
        powers = F.pad(torch.full((T,), BASE, device=token.device), (1, 0), value=1).cumprod(0)
        name, last = torch.zeros_like(length), torch.full_like(length, -1)
        name.index_put_(place, (1 + added) * powers[to_come], accumulate=True)
        is_last = to_come == 0
        last.index_put_(tuple(part[is_last] for part in place), added[is_last])
        tokens = token.new_full((B, count + 1, longest or 0), -1)
        if longest is not None:
            tokens.index_put_((*place, position), added)
        self.folded = Folded(
            log_prob=summed(torch.where(is_folded, value, 0.0)),
            is_empty=ends == 0,
            to_blank=torch.where(ends == 1, NEVER, value.new_zeros(())),
            to_token=torch.where(ends == 2, NEVER, value.new_zeros(())),
            last=last,
            name=name,
            shift=powers[length],
            tokens=tokens,
        )


def _steps(
    sure: Tensor, inside: Tensor, token: Tensor, blank: int, longest: int | None, needs_step: Tensor | None
) -> tuple[Tensor, Tensor]:
    """[B, T] each (token: each frame's most probable one) -> which frames are steps, and which of the others add their
    token."""
    is_blank = sure & (token == blank)
    frame = torch.arange(token.size(1), device=token.device).expand_as(token)
    # The latest frame before this one that is not a sure blank; -1: none.
    latest = torch.where(is_blank, -1, frame)
    latest = F.pad(latest.cummax(1).values if latest.numel() else latest, (1, 0), value=-1)[:, :-1]
    goes_on = sure & ~is_blank & (latest >= 0) & sure.gather(1, latest.clamp_min(0))
    adds = goes_on & (token != token.roll(1, 1))
    is_step = inside & ~is_blank & ~goes_on
    if needs_step is not None:
        is_step = is_step | (adds & needs_step[token])
    if longest is not None:
        is_step = is_step | (adds & (_since(is_step, adds) % (longest + 1) == 0))
    return is_step, adds & ~is_step


def _since(is_step: Tensor, adds: Tensor) -> Tensor:
    """[B, T] each -> how many frames have added a token since the last step, this one included."""
    total = adds.cumsum(1)
    return total - torch.where(is_step, total, 0).cummax(1).values if total.numel() else total
