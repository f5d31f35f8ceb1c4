"""Transducer greedy search: the most probable choice, again and again."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from src.decoding.hypothesis import Hypothesis
from src.decoding.scorer import is_cheap_to_ask
from src.decoding.settings import (
    require_blank,
    require_blank_in_vocabulary,
    require_lengths,
    require_symbols_per_frame,
    without_nan,
)


class Transducer(Protocol):
    """What the searches ask of a model; states are tuples of tensors [n, ...]."""

    predictor: Any  # begin(n) -> the state before any token

    def predict(self, tokens: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """tokens [n] after a state -> joint_predicted [n, H], and the state after them."""

    def joint(self, joint_encoded: Tensor, joint_predicted: Tensor) -> Tensor:
        """[..., H] of frames and of texts -> log_probs [..., V]."""


class TransducerGreedySearch:
    """At each frame the best token, up to ``max_symbols_per_frame`` of them, until the blank is better.

    The score is that of the choices; a blank that only the limit made necessary is none.

    Args:
        max_symbols_per_frame: S; an untrained model would else go on for ever.
        blank: the blank's token id.

    Raises ``UserError`` for a setting that is out of its range.
    """

    def __init__(self, max_symbols_per_frame: int = 1, blank: int = 0) -> None:
        require_symbols_per_frame(max_symbols_per_frame)
        require_blank(blank)
        self.max_symbols_per_frame, self.blank = max_symbols_per_frame, blank

    @torch.inference_mode()
    def __call__(
        self, model: Transducer, joint_encoded: Tensor, encoded_lengths: Tensor
    ) -> list[list[Hypothesis]]:
        """joint_encoded [B, T, H], encoded_lengths [B] -> per utterance a list of one hypothesis."""
        B, T, _ = joint_encoded.shape
        device = joint_encoded.device
        require_lengths(encoded_lengths, T)
        tokens = torch.zeros(B, dtype=torch.long, device=device)
        predicted, state = model.predict(tokens, model.predictor.begin(B))
        chosen, times = [], []
        for t in range(T):
            chooses = t < encoded_lengths
            for _ in range(self.max_symbols_per_frame):
                log_probs = without_nan(model.joint(joint_encoded[:, t], predicted))
                require_blank_in_vocabulary(self.blank, log_probs)
                values, tokens = log_probs.max(-1)
                emits = chooses & (tokens != self.blank)
                chosen.append((values.masked_fill(~chooses, 0.0), tokens.masked_fill(~emits, -1)))
                times.append(t)
                chooses = emits
                if is_cheap_to_ask(device) and not emits.any():
                    break
                new = model.predict(tokens, state)
                predicted = torch.where(emits[:, None], new[0], predicted)
                state = tuple(
                    torch.where(emits[:, None], n, old) for n, old in zip(new[1], state, strict=True)
                )
        if not chosen:
            return [[Hypothesis([], 0.0, {"acoustic": 0.0})] for _ in range(B)]
        values, tokens = (torch.stack(part, 1).cpu() for part in zip(*chosen, strict=True))
        return [[_hypothesis(*row, times)] for row in zip(values, tokens, strict=True)]


def _hypothesis(values: Tensor, tokens: Tensor, times: list[int]) -> Hypothesis:
    """Of the choices [N] of an utterance: their log probabilities, tokens (-1: a blank, or none), and frames."""
    score = float(values.double().sum())
    at = (tokens >= 0).nonzero().flatten()
    return Hypothesis(
        tokens=tokens[at].tolist(),
        score=score,
        parts={"acoustic": score},
        token_times=[times[place] for place in at.tolist()],
        token_log_probs=values[at].tolist(),
    )
