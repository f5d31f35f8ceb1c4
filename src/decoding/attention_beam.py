"""Beam search for attention models on [batch, beam] tensors, token by token, with what CTC and scorers say beside it.

A beam has two halves of K slots each: texts that are being written, and the best ones that have ended. A step asks for
the next token of the first; their ends compete with the texts of the second half, their other tokens with each other.
So a text that ends takes no other one's place, and one history of back-pointers holds both.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from src.decoding.attention_greedy import AttentionModel, token_limits
from src.decoding.ctc_prefix_scorer import CTCPrefixScorer
from src.decoding.fusion import Fusion
from src.decoding.history import History
from src.decoding.hypothesis import Hypothesis
from src.decoding.scorer import Scorer
from src.decoding.settings import (
    NEVER,
    at_least_one_frame,
    is_number,
    require,
    require_beam_size,
    require_ctc_layer,
    require_ctc_weight,
    require_threshold,
    require_tokens_per_frame,
    require_weight,
    without_nan,
)
from src.decoding.token_times import take_times_from_ctc

COVERED = 0.5  # attention that a frame must have got in all


class AttentionBeamSearch:
    """Beam search, batched over utterances and hypotheses; the texts' states are cached.

    Where it prunes nothing (no ``beam_threshold``, a beam as large as the number of texts) it is exact: the best text
    of at most ``max_tokens_per_frame`` tokens a frame.

    A token's time is the frame in which CTC's best alignment of the text begins it; without a CTC layer the frame that
    was looked at most, but not before the last token's.

    Args:
        beam_size: texts kept per utterance, K; also the length of the n-best list.
        ctc_weight: w; the acoustic score is (1 - w) log P(attention) + w log P(CTC), the model's CTC layer needed.
        scorers: pairs (``Scorer``, weight) added for each token and at the end.
        max_tokens_per_frame: a text ends at the latest after so many tokens for each encoder frame.
        beam_threshold: drop texts that are worse than the best one, ended or not, by more than this (natural log). An
            utterance is done when none is left that is being written; with None only at the greatest length.
        length_normalization: a; texts that have ended are compared by score / (tokens + 1) ** a.
        coverage_weight: added for each frame that got more than half a token's attention in all, against texts that
            skip a part or loop (Chorowski and Jaitly, arXiv 1612.02695, eq. 10).
        end_threshold: g; a text may end only where log P(end) > g log P(best other token), against ends that come too
            early (Hannun et al., arXiv 1904.02619, sec. 3.3).

    Raises ``UserError`` for a setting that is out of its range, or CTC of a model that has no such layer.
    """

    def __init__(
        self,
        beam_size: int = 8,
        ctc_weight: float = 0.0,
        scorers: Sequence[tuple[Scorer, float]] = (),
        max_tokens_per_frame: float = 1.0,
        beam_threshold: float | None = None,
        length_normalization: float = 0.0,
        coverage_weight: float = 0.0,
        end_threshold: float | None = None,
    ) -> None:
        require_beam_size(beam_size)
        require_ctc_weight(ctc_weight)
        require_tokens_per_frame(max_tokens_per_frame)
        require_threshold("beam_threshold", beam_threshold)
        fits = end_threshold is None or (is_number(end_threshold) and end_threshold > 0)
        require(fits, "end_threshold", end_threshold, "a number above 0, or null")
        fits = is_number(length_normalization) and 0 <= length_normalization <= 2
        require(fits, "length_normalization", length_normalization, "a number from 0 to 2")
        require_weight("coverage_weight", coverage_weight)
        self.beam_size, self.ctc_weight, self.fusion = beam_size, ctc_weight, Fusion(scorers)
        self.max_tokens_per_frame, self.beam_threshold = max_tokens_per_frame, beam_threshold
        self.length_normalization, self.coverage_weight = length_normalization, coverage_weight
        self.end_threshold = end_threshold

    @torch.inference_mode()
    def __call__(
        self, model: AttentionModel, encoded: Tensor, encoded_lengths: Tensor
    ) -> list[list[Hypothesis]]:
        """encoded [B, T, D], encoded_lengths [B] -> per utterance at most K hypotheses, best first."""
        B, K, device = len(encoded), self.beam_size, encoded.device
        encoded = at_least_one_frame(encoded, encoded_lengths)
        limits = token_limits(encoded_lengths, self.max_tokens_per_frame)[:, None]
        open_texts = _OpenTexts(self, model, encoded, encoded_lengths)
        written, ended = _Scores.nothing(B, K, device), _Scores.nothing(B, K, device)
        for part in written:
            part[:, 0] = 0.0  # the empty text
        steps = []
        for u in range(int(limits.max()) + 1 if B else 0):
            may_grow, length = u < limits, (u + 1) ** self.length_normalization
            seen = open_texts.look()
            can_end = self._may_end(seen.log_probs) | ~may_grow
            acoustic = written.acoustic + seen.acoustic[..., 0].masked_fill(~can_end, NEVER)
            coverage = written.coverage + seen.coverage
            ends = _Scores.of(acoustic, written.fused + seen.at_end, coverage, length)
            ended, ended_parents = ends.and_also(ended).best(K)

            V = seen.acoustic.size(2)
            acoustic = written.acoustic.unsqueeze(2) + seen.acoustic
            acoustic[..., 0] = NEVER
            acoustic = acoustic.masked_fill(~may_grow.unsqueeze(2), NEVER).flatten(1)
            fused = (written.fused.unsqueeze(2) + seen.fused).expand(-1, -1, V).flatten(1)
            coverage = coverage.repeat_interleave(V, 1)
            written, pair = _Scores.of(acoustic, fused, coverage, length).best(K)
            written = self._pruned(written, torch.maximum(written.score, ended.score)[:, :1])
            parents, tokens = pair // V, torch.where(written.score > NEVER, pair % V, -1)

            rows = seen.log_probs.flatten(1).gather(1, pair)
            step = parents, tokens, rows, seen.times.gather(1, parents)
            nothing = (
                ended_parents,
                torch.full_like(tokens, -1),
                torch.zeros_like(rows),
                torch.zeros_like(tokens),
            )
            steps.append([torch.cat(halves, 1) for halves in zip(step, nothing, strict=True)])
            if not (tokens >= 0).any():
                break
            open_texts.advance(parents, tokens)
        found = self._read(steps, ended)
        take_times_from_ctc(found, model.ctc_log_probs(encoded), encoded_lengths)
        return found

    def _may_end(self, log_probs: Tensor) -> Tensor:
        """log_probs [B, K, V] -> whether the end is probable enough, [B, K]."""
        if self.end_threshold is None or log_probs.size(2) == 1:
            return torch.ones_like(log_probs[..., 0], dtype=torch.bool)
        return log_probs[..., 0] > self.end_threshold * log_probs[..., 1:].amax(-1)

    def _pruned(self, texts: _Scores, best: Tensor) -> _Scores:
        """Without those that are too far below the best score [B, 1]."""
        if self.beam_threshold is None:
            return texts
        dropped = texts.score < best - self.beam_threshold
        return _Scores(*(part.masked_fill(dropped, NEVER) for part in texts))

    def _read(self, steps: list[list[Tensor]], ended: _Scores) -> list[list[Hypothesis]]:
        """The hypotheses of texts that have ended."""
        history = History(len(ended.score), 2 * self.beam_size)
        if steps:
            history.add(*(torch.stack(part) for part in zip(*steps, strict=True)))
        nothing = torch.full_like(ended.score, NEVER)  # texts without an end
        score, acoustic, fused = (
            torch.cat([nothing, part], 1) for part in (ended.score, ended.acoustic, ended.fused)
        )
        ranking = score - acoustic - fused if self.coverage_weight or self.length_normalization else None
        return history.hypotheses(score, acoustic, bool(self.fusion.scorers), ranking)


class _Scores(NamedTuple):
    """Of texts or candidates [B, N]."""

    acoustic: Tensor
    fused: Tensor  # what the scorers have added
    coverage: Tensor  # and coverage
    score: Tensor  # by which they are compared: the sum, normalised by the length

    @classmethod
    def of(cls, acoustic: Tensor, fused: Tensor, coverage: Tensor, length: float) -> _Scores:
        """With the score that follows from the others; length is what it is divided by."""
        return cls(acoustic, fused, coverage, (acoustic + fused + coverage) / length)

    @classmethod
    def nothing(cls, batch_size: int, beam_size: int, device: torch.device) -> _Scores:
        """Of slots that hold no text."""
        shape = 4, batch_size, beam_size
        return cls(*torch.full(shape, NEVER, dtype=torch.float64, device=device).unbind())

    def and_also(self, others: _Scores) -> _Scores:
        return _Scores(*(torch.cat(pair, 1) for pair in zip(self, others, strict=True)))

    def best(self, count: int) -> tuple[_Scores, Tensor]:
        """The best ones, best first, and their places [B, count]."""
        places = self.score.topk(count, 1).indices
        return _Scores(*(part.gather(1, places) for part in self)), places


class _Seen(NamedTuple):
    """What is known of the next token of texts that are being written."""

    log_probs: Tensor  # [B, K, V] by attention alone; token 0 is the end
    acoustic: Tensor  # [B, K, V] float64, with CTC
    fused: Tensor | float  # [B, K, V] by scorers
    at_end: Tensor | int  # [B, K] by these for the end
    coverage: Tensor  # [B, K] for the frames that are covered now
    times: Tensor  # [B, K] the frame that was looked at most, or the last token's where that is later


class _OpenTexts:
    """What model, CTC and scorers remember of the texts that are being written, K of each utterance."""

    def __init__(
        self, search: AttentionBeamSearch, model: AttentionModel, encoded: Tensor, encoded_lengths: Tensor
    ) -> None:
        self.model, self.search = model, search
        (B, T, _), K, device = encoded.shape, search.beam_size, encoded.device
        self.memory = model.remember(encoded, encoded_lengths)
        self.state = model.speller.begin(self.memory, K)
        self.tokens = torch.zeros(B, K, dtype=torch.long, device=device)
        self.first_rows = K * torch.arange(B, device=device)[:, None]
        self.covered = torch.zeros(B, K, T, device=device)
        self.times = torch.zeros_like(self.tokens)  # of their last tokens
        self.beside = Fusion([])
        if search.ctc_weight:
            log_probs = require_ctc_layer(model.ctc_log_probs(encoded), search.ctc_weight)
            self.beside = Fusion([(CTCPrefixScorer(log_probs, encoded_lengths), search.ctc_weight)])
        self.ctc_states = self.beside.start(B, K, device)
        self.states = search.fusion.start(B, K, device)

    def look(self) -> _Seen:
        """Asks for the next tokens; once a step."""
        search = self.search
        log_probs, weights, self.state = self.model.step(self.tokens, self.state, self.memory)
        log_probs, V = without_nan(log_probs), log_probs.size(2)
        acoustic = (1 - search.ctc_weight) * log_probs.double()
        if search.ctc_weight:
            acoustic = acoustic + self.beside.points(self.ctc_states, V)
        covered = self.covered + weights
        newly = (covered > COVERED).sum(-1) - (self.covered > COVERED).sum(-1)
        self.covered = covered
        coverage = search.coverage_weight * newly.double()
        points = search.fusion.points(self.states, V)
        fused = 0.0 if points is None else points
        at_end = search.fusion.finish(self.states)
        self.times = torch.maximum(self.times, weights.argmax(-1))
        return _Seen(log_probs, acoustic, fused, at_end, coverage, self.times)

    def advance(self, parents: Tensor, tokens: Tensor) -> None:
        """Text k became ``parents[b, k]`` followed by ``tokens[b, k]`` (-1: it was dropped); [B, K] each."""
        rows = (self.first_rows + parents).flatten()
        self.state = tuple(part.index_select(0, rows) for part in self.state)
        self.covered = self.covered.flatten(0, 1).index_select(0, rows).view_as(self.covered)
        self.tokens, self.times = tokens.clamp_min(0), self.times.gather(1, parents)
        self.ctc_states = self.beside.advance(self.ctc_states, parents, tokens)
        self.states = self.search.fusion.advance(self.states, parents, tokens)
