"""A piece of CTC posteriors as the beam search wants it: shortlists of tokens, and sure frames folded."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from src.decoding.ctc_folding import Folded, Folding
from src.decoding.prefix_names import BASE
from src.decoding.settings import NEVER, without_nan


class BestPath(NamedTuple):
    """What a frame adds to the text of the most probable path, [B, 1] each."""

    column: Tensor  # where its new token stands in the shortlist, if it has one
    name: Tensor  # of that token, as ``prefix_names`` has it; 0 for none
    shift: Tensor  # what the text's name is multiplied with to make room for it


class Frame(NamedTuple):
    """One frame of ``Frames``, whose attributes are explained there."""

    log_probs: Tensor  # [B, V]
    blank_log_prob: Tensor  # [B, 1] of these
    values: Tensor  # [B, M]
    tokens: Tensor  # [B, M + 1]
    columns: Tensor  # [B, V]
    limit: Tensor | None  # [B, 1]
    padding: Tensor  # [B, 1]
    best: BestPath
    folded: Folded | None  # the frames after it
    has_all_tokens: bool


class Block(NamedTuple):
    """Some frames after one another, stacked: [N, B, ...] each."""

    stacked: Frame

    def frames(self) -> list[Frame]:
        """The frames one by one."""
        *parts, best, folded, has_all_tokens = self.stacked
        N = len(parts[0])
        each = [[None] * N if part is None else part.unbind() for part in parts]
        each.append(map(BestPath, *(part.unbind() for part in best)))
        each.append([None] * N if folded is None else map(Folded, *(part.unbind() for part in folded)))
        return [Frame(*one, has_all_tokens) for one in zip(*each, strict=True)]


class Frames:
    """The frames to search in, prepared for all of them at once.

    Frames beyond an utterance's end are certain blanks: they change the mass of no prefix, only how it ends.

    Args:
        log_probs, lengths: [B, T, V], [B].
        blank: its token id.
        before: [B] the most probable token of the frame before the piece.
        shortlist: how many of each frame's tokens are looked at, the most probable first; None: all that
            ``token_top_k`` leaves, and without that in the order of their ids.
        token_top_k, token_min_log_prob, fold_sure: as in ``CTCBeamSearch``.
        longest, needs_step: as in ``Folding``.
        multiple: padding is added until T' is a multiple of it.

    Attributes:
        count: T', the number of frames that are left.
        log_probs: [B, T', V] float64.
        times: [B, T'] which frames of the piece they are.
        values: [B, T', M] log probabilities of the shortlists.
        tokens: [B, T', M + 1] their token ids, and -1 for no token.
        columns: [B, T', V] where each token stands in the shortlist; M: nowhere (and the blank).
        limit: [B, T', 1] least log probability of a token that may extend a prefix, or None.
        padding: [B, T', 1] which frames are beyond the utterance's end.
        best: what they add to the most probable path, [B, T', 1].
        last_best: [B] the most probable token of the piece's last frame.
        has_all_tokens: whether the shortlists are all tokens, in the order of their ids.
        folding: the frames that are not left; None: all are.
        folded_first: those before the first one.
    """

    def __init__(
        self,
        log_probs: Tensor,
        lengths: Tensor,
        blank: int,
        before: Tensor,
        shortlist: int | None = None,
        token_top_k: int | None = None,
        token_min_log_prob: float | None = None,
        fold_sure: float | None = None,
        longest: int | None = None,
        needs_step: Tensor | None = None,
        multiple: int = 1,
    ) -> None:
        self.blank = blank
        log_probs = without_nan(F.pad(log_probs.double(), (0, 0, 0, -log_probs.size(1) % multiple)))
        B, T, V = log_probs.shape
        self.times = torch.arange(T, device=log_probs.device).expand(B, T)
        kept = self.times < lengths[:, None]
        path = torch.cat([before[:, None], log_probs.argmax(-1)], 1)
        self.last_best = path.gather(1, lengths[:, None])[:, 0]
        best = torch.where((path[:, 1:] != path[:, :-1]) & kept & (path[:, 1:] != blank), path[:, 1:], -1)
        self.folding = folded = None
        if fold_sure is not None:
            least = math.log(fold_sure)
            self.folding = Folding(log_probs, kept, blank, least, longest, needs_step, multiple)
            best = best.gather(1, self.folding.times)
            log_probs, self.times, kept = self.folding.log_probs, self.folding.times, self.folding.is_step
            folded = Folded(*(part if part.dim() == 3 else part.unsqueeze(2) for part in self.folding.folded))
        log_probs = log_probs.masked_fill(~kept.unsqueeze(-1), NEVER)
        log_probs[..., blank].masked_fill_(~kept, 0.0)
        self.log_probs = log_probs
        self.padding = ~kept.unsqueeze(2)
        self.count = log_probs.size(1)
        best = best.unsqueeze(2)
        self._list_tokens(best, shortlist, token_top_k, token_min_log_prob)
        is_new = best >= 0
        column = self.columns.gather(2, best.clamp_min(0))
        self.best = BestPath(column, torch.where(is_new, best + 1, 0), torch.where(is_new, BASE, 1))
        self.folded_first = None if folded is None else Folded(*(part[:, 0] for part in folded))
        self._parts = [
            self.log_probs,
            self.log_probs[..., blank, None],
            self.values,
            self.tokens,
            self.columns,
            self.limit,
            self.padding,
            *self.best,
            *([] if folded is None else (part[:, 1:] for part in folded)),
        ]

    def blocks(self, size: int | None) -> Iterator[Block]:
        """All frames, so many at a time; None: all at once."""
        if not self.count:
            return
        size = size or self.count
        number = -(-self.count // size)
        each = [[None] * number if part is None else _by_frame(part).split(size) for part in self._parts]
        for parts in zip(*each, strict=True):
            folded = Folded(*parts[10:]) if parts[10:] else None
            yield Block(Frame(*parts[:7], BestPath(*parts[7:10]), folded, self.has_all_tokens))

    def _list_tokens(
        self, best: Tensor, shortlist: int | None, token_top_k: int | None, token_min_log_prob: float | None
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
            # Of every frame at least its most probable token may be one.
            self.limit = torch.minimum(self.limit, self.log_probs.amax(-1, keepdim=True))
            values = values.masked_fill(values < self.limit, NEVER)
        M = M if shortlist is None else min(M, shortlist)
        self.has_all_tokens = shortlist is None and M == V - 1
        if self.has_all_tokens:
            M = V
            tokens = torch.arange(V, device=values.device).expand_as(values)
        else:
            # Among equals the one of the best path is first.
            is_new = best >= 0
            first = torch.where(is_new, torch.inf, NEVER).to(values)
            tokens = values.scatter(-1, torch.where(is_new, best, self.blank), first).topk(M, -1).indices
            values = values.gather(-1, tokens)
        self.values = values
        self.tokens = torch.cat([tokens, tokens.new_full((*tokens.shape[:2], 1), -1)], -1)
        columns = torch.arange(M, device=values.device).expand_as(tokens)
        self.columns = tokens.new_full(self.log_probs.shape, M).scatter_(2, tokens, columns)
        self.columns[..., self.blank] = M


def _by_frame(part: Tensor) -> Tensor:
    """[B, T, ...] -> [T, B, ...], contiguous, so that a frame always looks the same."""
    return part.transpose(0, 1).clone(memory_format=torch.contiguous_format)
