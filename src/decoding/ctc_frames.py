"""A piece of CTC posteriors as the beam search wants it: shortlists of tokens, and gaps of blanks."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from src.decoding.settings import NEVER


class Frame(NamedTuple):
    """One frame of ``Frames``, whose attributes are explained there; contiguous, so that it always looks the same."""

    log_probs: Tensor  # [B, V]
    blank_log_prob: Tensor  # [B, 1] of these
    values: Tensor  # [B, M]
    tokens: Tensor  # [B, M + 1]
    columns: Tensor  # [B, V]
    limit: Tensor | None  # [B, 1]
    padding: Tensor  # [B, 1]
    gap: Tensor | None  # [B, 1] log probability of the blanks left out before it
    is_gap: Tensor | None  # [B, 1] whether there were any
    has_all_tokens: bool


class Frames:
    """The frames to search in, prepared for all of them at once.

    Frames beyond an utterance's end are certain blanks: they change the mass of no prefix, only how it ends.

    Args:
        log_probs, lengths: [B, T, V], [B].
        blank: its token id.
        shortlist: how many of each frame's tokens are looked at, the most probable first; None: all that
            ``token_top_k`` leaves, and without that in the order of their ids.
        token_top_k, token_min_log_prob, skip_blank: as in ``CTCBeamSearch``.

    Attributes:
        count: T', the number of frames that are left.
        log_probs: [B, T', V] float64.
        times: [B, T'] which frames of the piece they are.
        values: [B, T', M] log probabilities of the shortlists.
        tokens: [B, T', M + 1] their token ids, and -1 for no token.
        columns: [B, T', V] where each token stands in the shortlist; M: nowhere (and the blank).
        limit: [B, T', 1] least log probability of a token that may extend a prefix, or None.
        padding: [B, T', 1] which frames are beyond the utterance's end.
        has_all_tokens: whether the shortlists are all tokens, in the order of their ids.
        gaps: [B, T' + 1] log probability of the blanks left out before each frame and after the last, or None.
        is_gap: [B, T' + 1] whether there were any.
        last_gap: the last of both, [B, 1] each.
    """

    def __init__(
        self,
        log_probs: Tensor,
        lengths: Tensor,
        blank: int,
        shortlist: int | None = None,
        token_top_k: int | None = None,
        token_min_log_prob: float | None = None,
        skip_blank: float | None = None,
    ) -> None:
        self.blank = blank
        self.gaps = self.is_gap = None
        B, T, V = log_probs.shape
        log_probs = log_probs.double()
        self.times = torch.arange(T, device=log_probs.device).expand(B, T)
        kept = self.times < lengths[:, None]
        if skip_blank is not None:
            log_probs, kept = self._skip(log_probs, kept, math.log(skip_blank))
        log_probs = log_probs.masked_fill(~kept.unsqueeze(-1), NEVER)
        log_probs[..., blank].masked_fill_(~kept, 0.0)
        self.log_probs = log_probs
        self.padding = ~kept.unsqueeze(2)
        self.count = log_probs.size(1)
        self._list_tokens(shortlist, token_top_k, token_min_log_prob)
        blank_log_probs = self.log_probs[..., blank, None]
        parts = [
            self.log_probs,
            blank_log_probs,
            self.values,
            self.tokens,
            self.columns,
            self.limit,
            self.padding,
        ]
        parts += [None, None] if self.gaps is None else [self.gaps.unsqueeze(2), self.is_gap.unsqueeze(2)]
        nothing = [None] * (self.count + 1)
        self._each = [nothing if part is None else _by_frame(part) for part in parts]
        self.last_gap = tuple(part[self.count] for part in self._each[-2:])

    def __getitem__(self, t: int) -> Frame:
        return Frame(*(part[t] for part in self._each), self.has_all_tokens)

    def _skip(self, log_probs: Tensor, inside: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
        """Leaves out the frames whose blank is at least that probable; the others [B, T', V], and which are frames."""
        blank = log_probs[..., self.blank]
        skipped = inside & (blank >= threshold)
        kept = inside & ~skipped
        count = int(kept.sum(1).max()) if kept.numel() else 0
        self.times = torch.argsort((~kept).byte(), dim=1, stable=True)[:, :count]
        kept = kept.gather(1, self.times)

        def between(sums: Tensor) -> Tensor:
            """Of running sums [B, T]: what was added before each kept frame and after the last one, [B, T' + 1]."""
            sums = (
                torch.cat([torch.zeros_like(sums[:, :1]), sums], 1)
                if sums.size(1)
                else sums.new_zeros(len(sums), 1)
            )
            end = sums[:, -1:]
            at = torch.where(kept, sums.gather(1, self.times), end)
            return torch.cat([at, end], 1).diff(dim=1, prepend=torch.zeros_like(end))

        self.gaps = between(torch.where(skipped, blank, 0.0).cumsum(1))
        self.is_gap = between(skipped.cumsum(1)) > 0
        return log_probs.gather(1, self.times.unsqueeze(2).expand(-1, -1, log_probs.size(2))), kept

    def _list_tokens(
        self, shortlist: int | None, token_top_k: int | None, token_min_log_prob: float | None
    ) -> None:
        V = self.log_probs.size(2)
        M = V - 1
        values = self.log_probs.clone()
        values[..., self.blank] = NEVER
        self.limit = None
        if token_min_log_prob is not None:
            self.limit = torch.full_like(values[..., :1], token_min_log_prob)
        if token_top_k is not None and token_top_k < V:
            # Of all tokens: where the blank is one of the k, k - 1 others.
            least = self.log_probs.topk(token_top_k, -1).values[..., -1:]
            self.limit = least if self.limit is None else torch.maximum(self.limit, least)
            M = min(M, token_top_k)
        if self.limit is not None:
            values = values.masked_fill(values < self.limit, NEVER)
        M = M if shortlist is None else min(M, shortlist)
        self.has_all_tokens = shortlist is None and M == V - 1
        if self.has_all_tokens:
            M = V
            tokens = torch.arange(V, device=values.device).expand_as(values)
        else:
            values, tokens = values.topk(M, -1)
        self.values = values
        self.tokens = torch.cat([tokens, tokens.new_full((*tokens.shape[:2], 1), -1)], -1)
        columns = torch.arange(M, device=values.device).expand_as(tokens)
        self.columns = tokens.new_full(self.log_probs.shape, M).scatter_(2, tokens, columns)
        self.columns[..., self.blank] = M


def _by_frame(part: Tensor) -> tuple[Tensor, ...]:
    """[B, T, ...] -> T contiguous tensors [B, ...]."""
    return part.transpose(0, 1).clone(memory_format=torch.contiguous_format).unbind()
