"""CTC prefix beam search on [batch, beam] tensors: exact where it does not prune, and fast.

The beam sums the probability of all alignments of a prefix (blank and non-blank endings kept apart, as in Hannun et
al., arXiv 1408.2873, algorithm 1), in the log domain. The only Python loop runs over frames; a frame is a few dozen
small tensor operations, whatever the batch and the beam, and nothing waits for the device.

A frame has K * V extensions, but only few of them can be among its K best. With prefixes and tokens both sorted by
probability, prefix i (from 0) with token j is beaten by every i' <= i with j' <= j: (i + 1) * (j + 1) - 1 others. At
most one a prefix of these is less than it seems (its own last token again, which takes a blank in between), so pairs
with (i + 1) * j > K never matter, and about K ln K remain. An extension that is itself a prefix of the beam gives its
mass to that one, which is then at least as probable.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from src.decoding.ctc_frames import Frames
from src.decoding.history import History
from src.decoding.hypothesis import Hypothesis
from src.decoding.scorer import Scorer
from src.decoding.settings import (
    is_count,
    is_number,
    require,
    require_beam_size,
    require_blank,
    require_blank_in_vocabulary,
    require_scorers,
)

NEVER = float("-inf")
LOG_2 = math.log(2)


class CTCBeamSearch:
    """Prefix beam search, batched over utterances and hypotheses; the same code on CPU and GPU.

    With both token limits and ``skip_blank`` ``None`` nothing is pruned but the beam, and a beam as large as the
    number of prefixes is exact: a hypothesis's acoustic score equals minus its CTC loss.

    Args:
        beam_size: prefixes kept per utterance, K; also the length of the n-best list.
        blank: the blank's token id.
        token_top_k: extend prefixes only by each frame's k most probable tokens.
        token_min_log_prob: extend prefixes only by tokens at least this probable (natural log).
        scorers: pairs (``Scorer``, weight) added to the acoustic score of each extension and at the end.
        skip_blank: frames whose blank is at least this probable (0.99, say) are taken for blank and passed over.

    Raises ``UserError`` for a setting that is out of its range.

    Example:
        >>> log_probs = torch.tensor([[[0.6, 0.4, 0.0], [0.6, 0.4, 0.0]]]).log()
        >>> best = CTCBeamSearch(beam_size=4)(log_probs, torch.tensor([2]))[0][0]
        >>> best.tokens, round(best.score, 4) == round(torch.tensor(0.64).log().item(), 4)  # 1 - 0.36
        ([1], True)

    Long audio comes in pieces, so that its ``log_probs`` never exist as a whole:
        >>> search = CTCBeamSearch(beam_size=4)
        >>> beam = search.start(batch_size=1)
        >>> for piece in log_probs.split(1, dim=1):
        ...     search.advance(beam, piece, torch.tensor([1]))
        >>> search.finish(beam)[0][0].tokens
        [1]
    """

    def __init__(
        self,
        beam_size: int = 16,
        blank: int = 0,
        token_top_k: int | None = None,
        token_min_log_prob: float | None = None,
        scorers: Sequence[tuple[Scorer, float]] = (),
        skip_blank: float | None = None,
    ) -> None:
        count = "a whole number of at least 1"
        require_beam_size(beam_size)
        require_blank(blank)
        require(token_top_k is None or is_count(token_top_k, 1), "token_top_k", token_top_k, count)
        least = token_min_log_prob
        require(least is None or is_number(least), "token_min_log_prob", least, "a finite number")
        require_scorers(scorers)
        fits = skip_blank is None or (is_number(skip_blank) and 0 < skip_blank <= 1)
        require(fits, "skip_blank", skip_blank, "a probability above 0, up to 1")
        self.beam_size = beam_size
        self.blank = blank
        self.token_top_k = token_top_k
        self.token_min_log_prob = token_min_log_prob
        self.scorers = tuple(scorers)
        self.skip_blank = skip_blank

    def __call__(self, log_probs: Tensor, lengths: Tensor) -> list[list[Hypothesis]]:
        """log_probs [B, T, V] (natural log), lengths [B] -> per utterance at most K hypotheses, best first."""
        beam = self.start(log_probs.size(0), log_probs.device)
        self.advance(beam, log_probs, lengths)
        return self.finish(beam)

    @torch.inference_mode()
    def start(self, batch_size: int, device: torch.device | str = "cpu") -> Beam:
        """The beam before the first frame: the empty prefix of each utterance."""
        beam = Beam(batch_size, self.beam_size, self.blank, torch.device(device))
        parents, tokens = torch.zeros_like(beam.last), torch.full_like(beam.last, -1)
        for scorer, _ in self.scorers:
            scorer.to(beam.last.device)
            beam.scorer_states.append(scorer.advance(scorer.start(batch_size), parents, tokens))
        return beam

    @torch.inference_mode()
    def advance(self, beam: Beam, log_probs: Tensor, lengths: Tensor) -> None:
        """Consumes the next piece: log_probs [B, T, V], of which utterance b has ``lengths[b]`` frames."""
        require_blank_in_vocabulary(self.blank, log_probs)
        frames = Frames(
            log_probs,
            lengths.to(log_probs.device),
            self.blank,
            # Prefix 0 can make use of tokens 0..K; scorers may raise any token.
            shortlist=None if self.scorers else self.beam_size + 1,
            token_top_k=self.token_top_k,
            token_min_log_prob=self.token_min_log_prob,
            skip_blank=self.skip_blank,
        )
        B, _, M = frames.values.shape
        candidates = Candidates(B, self.beam_size, M, is_sorted=not self.scorers, device=beam.last.device)
        steps = []
        for t in range(frames.count):
            fusion = self._fuse(beam, frames, t) if self.scorers else None
            parents, tokens, *merges = beam.step(frames, t, candidates, fusion)
            steps.append((parents, tokens, *merges))
            beam.scorer_states = [
                scorer.advance(state, parents, tokens)
                for (scorer, _), state in zip(self.scorers, beam.scorer_states, strict=True)
            ]
        beam.pass_blanks(frames, frames.count)
        if steps:
            beam.remember(frames, *(torch.stack(part) for part in zip(*steps, strict=True)))
        beam.num_frames = beam.num_frames + lengths.to(beam.num_frames)

    @torch.inference_mode()
    def finish(self, beam: Beam) -> list[list[Hypothesis]]:
        """Per utterance at most K hypotheses, best first."""
        score = beam.total + beam.fused
        for (scorer, weight), state in zip(self.scorers, beam.scorer_states, strict=True):
            if weight:  # nothing times minus infinity is no number
                score = score + weight * scorer.finish(state).to(score)
        return beam.history.hypotheses(score, beam.total, has_scorers=bool(self.scorers))

    def _fuse(self, beam: Beam, frames: Frames, t: int) -> Tensor:
        """Weighted sum of the scorers' points for each prefix and each token of the shortlist, [B, K, M]."""
        shape = (*beam.last.shape, frames.values.size(2))
        fusion = torch.zeros((), dtype=torch.float64, device=beam.last.device)
        for (scorer, weight), state in zip(self.scorers, beam.scorer_states, strict=True):
            points = scorer.score(state)
            V, expected = points.size(-1), frames.log_probs.size(-1)
            require(V == expected, f"{type(scorer).__name__}'s vocabulary", V, f"the model's, {expected}")
            if weight:
                if not frames.has_all_tokens:
                    points = points.gather(2, frames.tokens[:, t, None, :-1].expand(shape))
                fusion = torch.add(fusion, points, alpha=weight)
        return fusion.expand(shape)


class Candidates:
    """What may be among the K best of a frame: the K prefixes as they are, pairs of prefix and token, and nothing.

    Args:
        batch_size, beam_size, columns: B, K, M.
        is_sorted: each frame's M tokens come sorted, so that few of the K * M pairs matter.

    Attributes:
        rows, columns: [K + P + 1] each candidate's prefix, and its column in the frame's shortlist (M: no token).
        pair_rows, pair_columns: [B, P] those of the pairs.
        place: [K * (M + 1)] where each pair stands among the candidates; the last one: nowhere.
        first_place: [K] where in that a prefix begins.
        mass: [B, K + P + 1] log probability of each; parts of it are ``staying`` and ``extended``.
        added: [B, K + P + 1] what scorers add to each, without ``is_sorted``; parts of it are ``added_to_prefixes``
            [B, K] and ``added_to_pairs`` [B, K, M].
    """

    def __init__(
        self, batch_size: int, beam_size: int, columns: int, is_sorted: bool, device: torch.device
    ) -> None:
        B, K, M = batch_size, beam_size, columns
        pair_rows, pair_columns = torch.arange(K).repeat_interleave(M), torch.arange(M).repeat(K)
        if is_sorted:
            needed = (pair_rows + 1) * pair_columns <= K
            pair_rows, pair_columns = pair_rows[needed], pair_columns[needed]
        P = len(pair_rows)
        place = torch.full((K, M + 1), K + P)
        place[pair_rows, pair_columns] = torch.arange(K, K + P)
        self.rows = torch.cat([torch.arange(K), pair_rows, torch.zeros(1, dtype=torch.long)]).to(device)
        self.columns = torch.cat([torch.full((K,), M), pair_columns, torch.full((1,), M)]).to(device)
        self.pair_rows, self.pair_columns = self.rows[K:-1].expand(B, P), self.columns[K:-1].expand(B, P)
        self.place, self.first_place = place.flatten().to(device), (M + 1) * torch.arange(K, device=device)
        self.per_prefix, self.nowhere = M + 1, K + P
        self.mass = torch.full((B, K + P + 1), NEVER, dtype=torch.float64, device=device)
        self.staying, self.extended = self.mass[:, :K], self.mass[:, K:-1]
        if not is_sorted:  # what scorers add to each
            self.added = torch.zeros_like(self.mass)
            self.added_to_prefixes = self.added[:, :K]
            self.added_to_pairs = self.added[:, K:-1].unflatten(1, (K, M))


class Beam:
    """The K most probable prefixes of B utterances as tensors [B, K], the most probable first.

    A slot that holds no prefix has a probability of 0 and a name that no prefix has.
    """

    def __init__(self, batch_size: int, beam_size: int, blank: int, device: torch.device) -> None:
        shape = (batch_size, beam_size)
        # Log probability of all alignments of a prefix, and of those that end in blank / in its last token.
        self.token_end = torch.full(shape, NEVER, dtype=torch.float64, device=device)
        self.total = self.token_end.clone()
        self.total[:, 0] = 0.0
        self.blank_end = self.total
        self.fused = torch.zeros_like(self.total)  # what the scorers have added
        self.last = torch.full(shape, blank, device=device)  # its last token; the blank where it has none
        # A 64-bit rolling hash names a prefix: equal prefixes are recognised whichever way they were reached.
        slots = torch.arange(beam_size, device=device).expand(shape)
        self.no_name, self.no_parent = -1 - slots, -1 - beam_size - slots
        self.name, self.parent_name = self.no_name.clone(), self.no_parent
        self.name[:, 0] = 1
        self.scorer_states: list[Any] = []
        self.num_frames = torch.zeros(batch_size, dtype=torch.long, device=device)  # consumed
        self.history = History(*shape)

    def step(
        self, frames: Frames, t: int, candidates: Candidates, fusion: Tensor | None
    ) -> tuple[Tensor, ...]:
        """Consumes frame t.

        Returns [B, K] each: the slot every prefix was in, its new token (-1: none); and for the slots as they were:
        the slot of the prefix without its last token, that last token, the mass that came from there, and the mass
        of the prefix with it.
        """
        self.pass_blanks(frames, t)
        frame, K = frames[t], self.last.size(1)
        at_last = frame.log_probs.gather(1, self.last)
        allowed = at_last if frame.limit is None else at_last.masked_fill(at_last < frame.limit, NEVER)

        # A prefix of the beam that extends another one of the beam receives that extension's mass.
        names, slots = self.name.sort(1)
        place = torch.searchsorted(names, self.parent_name).clamp_(max=K - 1)
        has_parent, parent = names.gather(1, place) == self.parent_name, slots.gather(1, place)
        is_doubled = self.last.gather(1, parent) == self.last  # the last token again takes a blank in between
        arriving = torch.where(is_doubled, self.blank_end.gather(1, parent), self.total.gather(1, parent))
        arriving = torch.where(has_parent, arriving + allowed, NEVER)
        blank_end = self.total + frame.blank
        token_end = torch.logaddexp(self.token_end + at_last, arriving)
        staying = torch.logaddexp(blank_end, token_end)
        if frame.padding is not None:
            blank_end = torch.where(frame.padding, self.blank_end, blank_end)
            token_end = torch.where(frame.padding, self.token_end, token_end)

        candidates.staying.copy_(staying)
        pairs = candidates.pair_rows, candidates.pair_columns
        torch.add(self.total.gather(1, pairs[0]), frame.values.gather(1, pairs[1]), out=candidates.extended)
        column = frame.columns.gather(1, self.last)
        doubled = candidates.place.take(candidates.first_place + column)
        candidates.mass.scatter_(1, doubled, self.blank_end + allowed)
        merged = candidates.place.take(torch.add(column, parent, alpha=candidates.per_prefix))
        merged = torch.where(has_parent, merged, candidates.nowhere)
        # Also nowhere, where a doubled pair that does not count has been written: one prefix at least has no parent.
        candidates.mass.scatter_(1, merged, NEVER)

        if fusion is None:
            total, best = candidates.mass.topk(K, dim=1)
        else:
            torch.add(self.fused.unsqueeze(2), fusion, out=candidates.added_to_pairs)
            candidates.added_to_prefixes.copy_(self.fused)
            best = (candidates.mass + candidates.added).topk(K, dim=1).indices
            total = candidates.mass.gather(1, best)
            self.fused = candidates.added.gather(1, best)
        parents = candidates.rows.take(best)
        tokens = frame.tokens.gather(1, candidates.columns.take(best))
        is_new, is_dead = tokens >= 0, total == NEVER

        last = self.last
        name = self.name.gather(1, parents)
        self.parent_name = torch.where(is_new, name, self.parent_name.gather(1, parents))
        self.parent_name = torch.where(is_dead, self.no_parent, self.parent_name)
        self.name = torch.where(is_dead, self.no_name, torch.where(is_new, _longer(name, tokens), name))
        self.last = torch.where(is_new, tokens, last.gather(1, parents))
        self.total = total
        is_fresh = is_new | is_dead  # all of its alignments, if any, end in the new token
        self.blank_end = torch.where(is_fresh, NEVER, blank_end.gather(1, parents))
        self.token_end = torch.where(is_fresh, total, token_end.gather(1, parents))
        return parents, tokens, parent, last, arriving, staying

    def pass_blanks(self, frames: Frames, t: int) -> None:
        """Over the frames that were left out before frame t."""
        if frames.gaps is None:
            return
        is_gap = frames.is_gap[:, t, None]
        self.total = self.total + frames.gaps[:, t, None]
        self.blank_end = torch.where(is_gap, self.total, self.blank_end)
        self.token_end = self.token_end.masked_fill(is_gap, NEVER)

    def remember(
        self,
        frames: Frames,
        parents: Tensor,
        tokens: Tensor,
        merged_from: Tensor,
        last: Tensor,
        arriving: Tensor,
        staying: Tensor,
    ) -> None:
        """Keeps the back-pointers of a piece, [T', B, K] each, as ``step`` returned them.

        The history of a prefix follows the larger mass, so that a token's time is the frame that made it probable.
        """
        mostly_merged = arriving > staying - LOG_2
        reborn = mostly_merged.gather(2, parents) & (tokens < 0)
        tokens = torch.where(reborn, last.gather(2, parents), tokens)
        parents = torch.where(reborn, merged_from.gather(2, parents), parents)
        posteriors = frames.log_probs.transpose(0, 1).gather(2, tokens.clamp_min(0))
        times = (frames.times + self.num_frames[:, None]).T
        self.history.add(parents, tokens, posteriors, times)


def _longer(name: Tensor, token: Tensor) -> Tensor:
    """Hash of a prefix with one token more (multiply-and-xorshift, wrapping int64)."""
    mixed = torch.add(token, name, alpha=6364136223846793005)
    return mixed ^ (mixed >> 29)
