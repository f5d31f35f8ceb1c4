"""Greedy search for attention models: the most probable token, again and again, until the end is."""

from __future__ import annotations

from itertools import accumulate
from typing import Any, Protocol

import torch
from torch import Tensor

from src.decoding.hypothesis import Hypothesis
from src.decoding.settings import at_least_one_frame, require_tokens_per_frame, without_nan
from src.decoding.token_times import take_times_from_ctc


class AttentionModel(Protocol):
    """What the searches ask of a model; a state is a tuple of tensors [B * K, ...], a memory whatever it likes."""

    speller: Any  # begin(memory, beam_size) -> the state before any token

    def remember(self, encoded: Tensor, encoded_lengths: Tensor) -> Any:
        """encoded [B, T, D], encoded_lengths [B] -> the memory that ``step`` looks at."""

    def step(self, tokens: Tensor, state: tuple[Tensor, ...], memory: Any) -> tuple[Tensor, Tensor, tuple]:
        """tokens [B, K] (first 0) -> log_probs [B, K, V] (0: the end), weights [B, K, T], the states after them."""

    def ctc_log_probs(self, encoded: Tensor) -> Tensor | None:
        """log_probs [B, T, V] of a CTC layer, if there is one."""


def token_limits(encoded_lengths: Tensor, max_tokens_per_frame: float) -> Tensor:
    """How many tokens a text may have [B]: an untrained model would go on for ever."""
    return (encoded_lengths * max_tokens_per_frame).ceil().long()


class AttentionGreedySearch:
    """At each step the best token, until that is the end; times as those of ``AttentionBeamSearch``.

    Args:
        max_tokens_per_frame: a text ends at the latest after so many tokens for each encoder frame.

    Raises ``UserError`` for a setting that is out of its range.
    """

    def __init__(self, max_tokens_per_frame: float = 1.0) -> None:
        require_tokens_per_frame(max_tokens_per_frame)
        self.max_tokens_per_frame = max_tokens_per_frame

    @torch.inference_mode()
    def __call__(
        self, model: AttentionModel, encoded: Tensor, encoded_lengths: Tensor
    ) -> list[list[Hypothesis]]:
        """encoded [B, T, D], encoded_lengths [B] -> per utterance a list of one hypothesis."""
        encoded = at_least_one_frame(encoded, encoded_lengths)
        memory = model.remember(encoded, encoded_lengths)
        state = model.speller.begin(memory, 1)
        limits = token_limits(encoded_lengths, self.max_tokens_per_frame)[:, None]
        tokens = torch.zeros_like(limits)
        writes, steps = torch.ones_like(tokens, dtype=torch.bool), []
        for u in range(int(limits.max()) + 1 if len(limits) else 0):
            log_probs, weights, state = model.step(tokens, state, memory)
            values, tokens = without_nan(log_probs).max(-1)
            ends = tokens == 0
            # At the limit a text is cut; what was not chosen has no part in the score.
            scored, writes = writes & (ends | (u < limits)), writes & ~ends & (u < limits)
            values = torch.where(scored, values.double(), 0.0)
            steps.append((values, torch.where(writes, tokens, -1), weights.argmax(-1)))
            if not writes.any():
                break
        if not steps:
            return []
        values, tokens, times = (torch.cat(part, 1).tolist() for part in zip(*steps, strict=True))
        found = [[_hypothesis(*row)] for row in zip(values, tokens, times, strict=True)]
        take_times_from_ctc(found, model.ctc_log_probs(encoded), encoded_lengths)
        return found


def _hypothesis(values: list[float], tokens: list[int], times: list[int]) -> Hypothesis:
    """Of the choices of an utterance: their log probabilities, tokens (-1: none), and frames."""
    score, count = sum(values), sum(token >= 0 for token in tokens)
    return Hypothesis(
        tokens[:count], score, {"acoustic": score}, [*accumulate(times[:count], max)], values[:count]
    )
