"""One frame of the CTC prefix beam search: tensors in, tensors out.

The beam sums the probability of all alignments of a prefix (blank and non-blank endings kept apart, as in Hannun et
al., arXiv 1408.2873, algorithm 1), in the log domain, in a few dozen small tensor operations, whatever the batch and
the beam; nothing waits for the device.

Slot 0 is kept for the best path, the one of each frame's most probable token: its prefix stays in the beam however
improbable, so that what the search finds is never worse than what greedy search writes (``ctc_exact.py`` compares the
two by all alignments). The others are sorted.

A frame has K * V extensions, but only few of them can be among its K best. With prefixes and tokens both sorted by
probability, prefix i (from 1) with token j (from 0) is beaten by every i' <= i with j' <= j: i * (j + 1) - 1 others. At
most one a prefix of these is less than it seems (its own last token again, which takes a blank in between), so pairs
with i * j > K never matter, and about K ln K remain. An extension that is itself a prefix of the beam gives its
mass to that one, which is then at least as probable.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from src.decoding.ctc_folding import Folded
from src.decoding.ctc_frames import Frame
from src.decoding.history import Pointers
from src.decoding.prefix_names import EMPTY, find_parents, longer, no_names
from src.decoding.settings import NEVER


class Prefixes(NamedTuple):
    """The prefixes of B utterances, [B, K] each: that of the best path, and the most probable others in order.

    A slot that holds no prefix has a probability of 0 and a name that no prefix has.
    """

    total: Tensor  # log probability of all alignments
    blank_end: Tensor  # of those that end in blank
    token_end: Tensor  # of those that end in its last token
    fused: Tensor  # what the scorers have added
    last: Tensor  # its last token; the blank where it has none
    name: Tensor

    @classmethod
    def empty(cls, batch_size: int, beam_size: int, blank: int, device: torch.device) -> Prefixes:
        """The empty prefix in slot 0, nothing in the others."""
        shape = (batch_size, beam_size)
        token_end = torch.full(shape, NEVER, dtype=torch.float64, device=device)
        total = token_end.clone()
        total[:, 0] = 0.0
        name = no_names(*shape, device)
        name[:, 0] = EMPTY
        last = torch.full(shape, blank, device=device)
        return cls(total, total.clone(), token_end, torch.zeros_like(total), last, name)

    def after(self, folded: Folded, points: Tensor | float = 0.0) -> Prefixes:
        """Over sure frames that were folded, for which scorers give these points [B, K]."""
        total = self.total + folded.log_prob
        return Prefixes(
            total=total,
            blank_end=torch.where(folded.is_empty, self.blank_end, total + folded.to_blank),
            token_end=torch.where(folded.is_empty, self.token_end, total + folded.to_token),
            fused=self.fused + points,
            last=torch.where(folded.last < 0, self.last, folded.last),
            name=self.name * folded.shift + folded.name,
        )


class Candidates:
    """The places of what may be among the K best of a frame: K prefixes as they are, P pairs of prefix and token, and
    at the end a bin, in whose mass of 0 is written what must not count.

    Args:
        batch_size, beam_size, columns: B, K, M.
        is_sorted: each frame's M tokens come sorted, so that few of the K * M pairs matter.

    Attributes:
        rows, columns: [K + P + 1] each candidate's prefix, and its column in the frame's shortlist (M: no token).
        pair_rows, pair_columns: [B, P] those of the pairs.
        place: [K * (M + 1)] where each pair stands among the candidates; the bin for pairs that never matter and
            for column M. All pairs of prefix 0 are there.
        first_place, per_prefix: [K] and M + 1, where in that a prefix begins, and how far the next one is.
        bin: K + P.
        nothing: [B, 1] log of 0.
        no_names: [B, K] names that no prefix has.
    """

    def __init__(
        self, batch_size: int, beam_size: int, columns: int, is_sorted: bool, device: torch.device
    ) -> None:
        B, K, M = batch_size, beam_size, columns
        pair_rows, pair_columns = torch.arange(K).repeat_interleave(M), torch.arange(M).repeat(K)
        if is_sorted:
            needed = pair_rows * pair_columns <= K
            pair_rows, pair_columns = pair_rows[needed], pair_columns[needed]
        P = len(pair_rows)
        place = torch.full((K, M + 1), K + P)
        place[pair_rows, pair_columns] = torch.arange(K, K + P)
        self.rows = torch.cat([torch.arange(K), pair_rows, torch.zeros(1, dtype=torch.long)]).to(device)
        self.columns = torch.cat([torch.full((K,), M), pair_columns, torch.full((1,), M)]).to(device)
        self.pair_rows, self.pair_columns = self.rows[K:-1].expand(B, P), self.columns[K:-1].expand(B, P)
        self.place, self.first_place = place.flatten().to(device), (M + 1) * torch.arange(K, device=device)
        self.per_prefix, self.bin = M + 1, K + P
        self.nothing = torch.full((B, 1), NEVER, dtype=torch.float64, device=device)
        self.no_names = no_names(B, K, device)


def step(
    prefixes: Prefixes, frame: Frame, candidates: Candidates, fusion: Tensor | None
) -> tuple[Prefixes, Pointers]:
    """The prefixes after one more frame; fusion [B, K or 1, M]: what scorers give for each token of the shortlist."""
    total, blank_end, token_end, fused, last, name = prefixes
    K = last.size(1)
    at_last = frame.log_probs.gather(1, last)
    allowed = at_last if frame.limit is None else at_last.masked_fill(at_last < frame.limit, NEVER)

    # A prefix of the beam that extends another one of the beam receives that extension's mass.
    has_parent, parent = find_parents(name, last)
    is_doubled = last.gather(1, parent) == last  # the last token again takes a blank in between
    arriving = torch.where(is_doubled, blank_end.gather(1, parent), total.gather(1, parent))
    arriving = torch.where(has_parent, arriving + allowed, NEVER)
    new_blank_end = total + frame.blank_log_prob
    new_token_end = torch.logaddexp(token_end + at_last, arriving)
    staying = torch.logaddexp(new_blank_end, new_token_end)
    new_blank_end = torch.where(frame.padding, blank_end, new_blank_end)
    new_token_end = torch.where(frame.padding, token_end, new_token_end)

    extended = total.gather(1, candidates.pair_rows) + frame.values.gather(1, candidates.pair_columns)
    mass = torch.cat([staying, extended, candidates.nothing], 1)
    column = frame.columns.gather(1, last)
    doubled = candidates.place.take(candidates.first_place + column)
    mass.scatter_(1, doubled, blank_end + allowed)
    merged = candidates.place.take(torch.add(column, parent, alpha=candidates.per_prefix))
    merged = torch.where(has_parent, merged, candidates.bin)
    # One prefix at least has no parent: the bin, where doubled pairs that never matter were written, is emptied, too.
    mass.scatter_(1, merged, NEVER)

    # Where the best path goes: to a prefix that is there, or by its token out of slot 0.
    best_name = torch.addcmul(frame.best.name, name[:, :1], frame.best.shift)
    is_there = name == best_name
    best_path = torch.where(is_there, candidates.rows[:K], K + frame.best.column).amin(1, keepdim=True)

    if fusion is None:
        rank = mass.scatter(1, best_path, torch.inf)
    else:
        added = torch.cat(
            [fused, (fused.unsqueeze(2) + fusion).flatten(1), torch.zeros_like(candidates.nothing)], 1
        )
        rank = (mass + added).scatter_(1, best_path, torch.inf)
    # Beyond the end nothing moves: among equals a sort might choose anew.
    best = torch.where(frame.padding, candidates.rows[:K], rank.topk(K, dim=1).indices)
    new_total = mass.gather(1, best)
    if fusion is not None:
        fused = added.gather(1, best)
    parents = candidates.rows.take(best)
    tokens = frame.tokens.gather(1, candidates.columns.take(best))
    is_new, is_dead = tokens >= 0, new_total == NEVER
    is_fresh = is_new | is_dead  # all of its alignments, if any, end in the new token

    old_name = name.gather(1, parents)
    name = torch.where(is_new, longer(old_name, tokens), old_name)
    after = Prefixes(
        total=new_total,
        blank_end=torch.where(is_fresh, NEVER, new_blank_end.gather(1, parents)),
        token_end=torch.where(is_fresh, new_total, new_token_end.gather(1, parents)),
        fused=fused,
        last=torch.where(is_new, tokens, last.gather(1, parents)),
        name=torch.where(is_dead, candidates.no_names, name),
    )
    return after, Pointers(parents, tokens, parent, last, arriving, staying)
