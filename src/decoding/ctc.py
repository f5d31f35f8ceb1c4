"""CTC search: greedy, and a prefix beam on [batch, beam] tensors.

Everything is in the log domain and in token ids. The beam sums the probability of all alignments of a
prefix (blank and non-blank endings kept apart, as in Hannun et al., arXiv 1408.2873, algorithm 1), and no
Python loop runs over utterances, hypotheses or tokens while searching: only over frames.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from src.decoding.hypothesis import Hypothesis
from src.decoding.scorer import Scorer
from src.utils.errors import UserError

NEVER = float("-inf")
LARGEST_BEAM = 10_000


def _require(fits: bool, name: str, value: Any, expected: str) -> None:
    """Raises ``UserError`` for a setting that does not fit."""
    if not fits:
        raise UserError(f"{name}={value!r} must be {expected}")


def _is_count(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_weighted_scorer(pair: Any) -> bool:
    return (
        isinstance(pair, list | tuple)
        and len(pair) == 2
        and hasattr(pair[0], "finish")
        and _is_number(pair[1])
    )


def _check_blank(blank: int, log_probs: Tensor) -> None:
    V = log_probs.size(-1)
    _require(blank < V, "blank", blank, f"below {V}, the number of tokens")


class CTCGreedySearch:
    """The best token of every frame, repeats collapsed, blanks removed. The score is that alignment's.

    Example:
        >>> log_probs = torch.tensor([[[0.1, 0.8, 0.1], [0.1, 0.8, 0.1], [0.6, 0.2, 0.2], [0.1, 0.9, 0.0]]]).log()
        >>> CTCGreedySearch()(log_probs, torch.tensor([4]))[0][0].tokens
        [1, 1]
    """

    def __init__(self, blank: int = 0) -> None:
        _require(_is_count(blank, 0), "blank", blank, "a token id, 0 or more")
        self.blank = blank

    def __call__(self, log_probs: Tensor, lengths: Tensor) -> list[list[Hypothesis]]:
        """log_probs [B, T, V] (natural log), lengths [B] -> per utterance a list of one hypothesis."""
        _check_blank(self.blank, log_probs)
        best, tokens = log_probs.float().max(-1)  # [B, T]
        starts = tokens != self.blank
        starts[:, 1:] &= tokens[:, 1:] != tokens[:, :-1]
        results = []
        for values, path, start, length in zip(
            best.cpu(), tokens.cpu(), starts.cpu(), lengths.tolist(), strict=True
        ):
            times = start[:length].nonzero().flatten()
            score = float(values[:length].double().sum())
            results.append(
                [
                    Hypothesis(
                        tokens=path[times].tolist(),
                        score=score,
                        parts={"acoustic": score},
                        token_times=times.tolist(),
                        token_log_probs=values[times].tolist(),
                    )
                ]
            )
        return results


class CTCBeamSearch:
    """Prefix beam search, batched over utterances and hypotheses; the same code on CPU and GPU.

    With both token limits ``None`` nothing is pruned but the beam, and a beam as large as the number of
    prefixes is exact: a hypothesis's acoustic score equals minus its CTC loss.

    Args:
        beam_size: prefixes kept per utterance, K; also the length of the n-best list.
        blank: the blank's token id.
        token_top_k: extend prefixes only by each frame's k most probable tokens.
        token_min_log_prob: extend prefixes only by tokens at least this probable (natural log).
        scorers: pairs (``Scorer``, weight) added to the acoustic score of each extension and at the end.

    Raises ``UserError`` for a setting that is out of its range.

    Example:
        >>> log_probs = torch.tensor([[[0.6, 0.4, 0.0], [0.6, 0.4, 0.0]]]).log()
        >>> CTCGreedySearch()(log_probs, torch.tensor([2]))[0][0].tokens  # the best alignment is all blank
        []
        >>> best = CTCBeamSearch(beam_size=4)(log_probs, torch.tensor([2]))[0][0]
        >>> best.tokens, round(best.score, 4) == round(torch.tensor(0.64).log().item(), 4)  # 1 - 0.36
        ([1], True)
    """

    def __init__(
        self,
        beam_size: int = 16,
        blank: int = 0,
        token_top_k: int | None = None,
        token_min_log_prob: float | None = None,
        scorers: Sequence[tuple[Scorer, float]] = (),
    ) -> None:
        count = "a whole number of at least 1"
        fits = _is_count(beam_size, 1) and beam_size <= LARGEST_BEAM
        _require(fits, "beam_size", beam_size, f"a whole number from 1 to {LARGEST_BEAM}")
        _require(_is_count(blank, 0), "blank", blank, "a token id, 0 or more")
        _require(token_top_k is None or _is_count(token_top_k, 1), "token_top_k", token_top_k, count)
        least = token_min_log_prob
        _require(least is None or _is_number(least), "token_min_log_prob", least, "a finite number")
        pairs = isinstance(scorers, list | tuple) and all(map(_is_weighted_scorer, scorers))
        _require(pairs, "scorers", scorers, "a list of pairs [scorer, weight]")
        self.beam_size = beam_size
        self.blank = blank
        self.token_top_k = token_top_k
        self.token_min_log_prob = token_min_log_prob
        self.scorers = tuple(scorers)

    @torch.inference_mode()
    def __call__(self, log_probs: Tensor, lengths: Tensor) -> list[list[Hypothesis]]:
        """log_probs [B, T, V] (natural log), lengths [B] -> per utterance at most K hypotheses, best first."""
        _check_blank(self.blank, log_probs)
        log_probs = log_probs.double()
        B, T, V = log_probs.size()
        beam = _Beam(B, self.beam_size, log_probs.device)
        states = [scorer.start(B) for scorer, _ in self.scorers]
        allowed = self._allowed_tokens(log_probs)
        history = []
        for t in range(T):
            fusion = self._fuse(states, (B, beam.width, V), log_probs)
            parents, tokens = beam.step(log_probs[:, t], allowed[:, t], fusion, lengths > t, self.blank)
            states = [
                scorer.advance(state, parents, tokens)
                for (scorer, _), state in zip(self.scorers, states, strict=True)
            ]
            history.append((parents, tokens))
        final = beam.total + beam.fused
        for (scorer, weight), state in zip(self.scorers, states, strict=True):
            if weight:  # nothing times minus infinity is no number
                final = final + weight * scorer.finish(state).to(final)
        return self._trace(beam, history, final, log_probs)

    def _allowed_tokens(self, log_probs: Tensor) -> Tensor:
        """[B, T, V] bool: tokens that may extend a prefix in a frame."""
        allowed = torch.ones_like(log_probs, dtype=torch.bool)
        if self.token_min_log_prob is not None:
            allowed &= log_probs >= self.token_min_log_prob
        if self.token_top_k is not None and self.token_top_k < log_probs.size(-1):
            allowed &= log_probs >= log_probs.topk(self.token_top_k, -1).values[..., -1:]
        allowed[..., self.blank] = False
        return allowed

    def _fuse(self, states: list, shape: tuple, like: Tensor) -> Tensor | None:
        """Weighted sum of the scorers' next-token scores, [B, K, V]."""
        if not self.scorers:
            return None
        fusion = torch.zeros(shape, dtype=like.dtype, device=like.device)
        for (scorer, weight), state in zip(self.scorers, states, strict=True):
            points = scorer.score(state)
            V = points.size(-1)
            _require(V == shape[-1], f"{type(scorer).__name__}'s vocabulary", V, f"the model's, {shape[-1]}")
            if weight:
                fusion = fusion + weight * points.to(fusion)
        return fusion

    def _trace(self, beam: _Beam, history: list, final: Tensor, log_probs: Tensor) -> list[list[Hypothesis]]:
        """Follows the back-pointers of all hypotheses at once and builds the sorted lists."""
        B, K = final.size()
        T = len(history)
        slots = torch.arange(K, device=final.device).expand(B, K)
        emitted = torch.full((B, K, T), -1, dtype=torch.long, device=final.device)
        for t in reversed(range(T)):
            parents, tokens = history[t]
            emitted[:, :, t] = tokens.gather(1, slots)
            slots = parents.gather(1, slots)
        posteriors = log_probs.transpose(1, 2).gather(1, emitted.clamp_min(0)) if T else emitted.double()
        order = final.argsort(dim=1, descending=True, stable=True).tolist()
        emitted, posteriors, scores, totals = (x.cpu() for x in (emitted, posteriors, final, beam.total))
        results = []
        for b in range(B):
            hypotheses = []
            for k in order[b]:
                if scores[b, k] == NEVER:
                    continue
                times = (emitted[b, k] >= 0).nonzero().flatten()
                acoustic = float(totals[b, k])
                parts = {"acoustic": acoustic}
                if self.scorers:
                    parts["scorers"] = float(scores[b, k]) - acoustic
                hypotheses.append(
                    Hypothesis(
                        tokens=emitted[b, k, times].tolist(),
                        score=float(scores[b, k]),
                        parts=parts,
                        token_times=times.tolist(),
                        token_log_probs=posteriors[b, k, times].tolist(),
                    )
                )
            results.append(hypotheses or [Hypothesis([], NEVER, {"acoustic": NEVER})])  # nothing is possible
        return results


class _Beam:
    """The K best prefixes of B utterances, as tensors [B, K]."""

    def __init__(self, batch_size: int, beam_size: int, device: torch.device) -> None:
        self.beam_size = beam_size
        shape = (batch_size, 1)
        # Log probability of all alignments of the prefix that end in blank / in its last token.
        self.blank_end = torch.zeros(shape, dtype=torch.float64, device=device)
        self.token_end = torch.full(shape, NEVER, dtype=torch.float64, device=device)
        self.fused = torch.zeros(shape, dtype=torch.float64, device=device)  # what the scorers have added
        self.last = torch.full(shape, -1, dtype=torch.long, device=device)
        # A 64-bit rolling hash names a prefix: equal prefixes are recognised whichever way they were reached.
        self.name = torch.ones(shape, dtype=torch.long, device=device)

    @property
    def width(self) -> int:
        return self.last.size(1)

    @property
    def total(self) -> Tensor:
        return torch.logaddexp(self.blank_end, self.token_end)

    @staticmethod
    def extended_name(name: Tensor, token: Tensor) -> Tensor:
        """Hash of a prefix with one token more (multiply-and-xorshift, wrapping int64)."""
        mixed = (name ^ (token + 1)) * 6364136223846793005 + 1442695040888963407
        return mixed ^ (mixed >> 29)

    def step(
        self, frame: Tensor, allowed: Tensor, fusion: Tensor | None, active: Tensor, blank: int
    ) -> tuple[Tensor, Tensor]:
        """Consumes one frame [B, V]; returns back-pointers (parents [B, K'], tokens [B, K'], -1 = no new token).

        Utterances that are not ``active`` [B] keep their prefixes as they are.
        """
        B, K = self.last.size()
        V = frame.size(-1)
        total = self.total
        last = torch.where(
            self.last < 0, blank, self.last
        )  # the empty prefix repeats nothing: blank is never extended
        at_last = frame.gather(1, last)  # log probability of repeating each prefix's last token
        blank_end = total + frame[:, blank, None]
        token_end = self.token_end + at_last

        # Extending by the last token again needs a blank in between; any other token follows either ending.
        extension = (total.unsqueeze(-1) + frame.unsqueeze(1)).masked_fill(~allowed.unsqueeze(1), NEVER)
        repeated = (self.blank_end + at_last).masked_fill(~allowed.gather(1, last), NEVER)
        extension.scatter_(2, last.unsqueeze(-1), repeated.unsqueeze(-1))

        # A prefix of the beam that extends another one of the beam receives that extension's mass.
        # Empty slots (fewer prefixes than K) must not pose as prefixes.
        alive = total + self.fused > NEVER
        child_names = self.extended_name(self.name.unsqueeze(1), last.unsqueeze(2))  # [B, child, parent]
        is_child = (child_names == self.name.unsqueeze(2)) & (alive & (self.last >= 0)).unsqueeze(2)
        arriving = extension.gather(2, last.unsqueeze(1).expand(B, K, K))  # [B, parent, child]
        arriving, arrives_from = arriving.transpose(1, 2).masked_fill(~is_child, NEVER).max(2)
        # Its history follows the larger mass, so that a token's time is the frame that made it probable.
        reborn = arriving > torch.logaddexp(blank_end, token_end)
        token_end = torch.logaddexp(token_end, arriving)
        merged = torch.zeros(B, K, V + 1, dtype=torch.bool, device=frame.device)
        targets = torch.where(is_child, last.unsqueeze(2), V).transpose(1, 2)  # [B, parent, child]
        extension = extension.masked_fill(merged.scatter_(2, targets, True)[..., :V], NEVER)

        stay_score = torch.logaddexp(blank_end, token_end) + self.fused
        fused = self.fused.unsqueeze(-1) if fusion is None else self.fused.unsqueeze(-1) + fusion
        candidates = torch.cat([stay_score, (extension + fused).flatten(1)], dim=1)
        kept = min(self.beam_size, candidates.size(1))
        best = candidates.topk(kept, dim=1).indices  # [B, K']
        frozen = torch.arange(kept, device=frame.device).expand(B, kept)
        best = torch.where(active[:, None], best, frozen.clamp_max(K - 1))

        is_new = best >= K
        parents = torch.where(is_new, (best - K) // V, best)
        tokens = torch.where(is_new, (best - K) % V, -1)
        stays = ~is_new & active[:, None]

        def inherit(values: Tensor) -> Tensor:
            return values.gather(1, parents)

        flat = (best - K).clamp_min(0)
        new_mass = extension.flatten(1).gather(1, flat)
        gained = 0.0 if fusion is None else fusion.flatten(1).gather(1, flat)
        unused = ~active[:, None] & (frozen >= K)  # slots that a finished, narrower beam does not fill
        self.fused = torch.where(is_new, inherit(self.fused) + gained, inherit(self.fused))
        old_blank, old_token = inherit(self.blank_end), inherit(self.token_end)
        self.blank_end = torch.where(stays, inherit(blank_end), torch.where(is_new, NEVER, old_blank))
        self.token_end = torch.where(stays, inherit(token_end), torch.where(is_new, new_mass, old_token))
        self.blank_end = self.blank_end.masked_fill(unused, NEVER)
        self.token_end = self.token_end.masked_fill(unused, NEVER)
        name = inherit(self.name)
        self.name = torch.where(is_new, self.extended_name(name, tokens), name)
        reborn = inherit(reborn) & stays
        kept_last = inherit(self.last)
        self.last = torch.where(is_new, tokens, kept_last)
        return torch.where(reborn, inherit(arrives_from), parents), torch.where(reborn, kept_last, tokens)
