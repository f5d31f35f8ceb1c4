"""What the searches accept as settings and inputs, and how they refuse the rest."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from src.utils.errors import UserError
from src.utils.masks import NEVER

LARGEST_BEAM = 10_000  # History keeps slots as 16-bit numbers
LARGEST_WEIGHT = 10**6  # so that no sum of scores is infinite


def require(fits: bool, name: str, value: Any, expected: str) -> None:
    """Raises ``UserError`` for a setting that does not fit."""
    if not fits:
        raise UserError(f"{name}={value!r} must be {expected}")


def is_count(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def is_path(value: Any) -> bool:
    return isinstance(value, str | Path) and bool(str(value))


def require_beam_size(beam_size: Any) -> None:
    fits = is_count(beam_size, 1) and beam_size <= LARGEST_BEAM
    require(fits, "beam_size", beam_size, f"a whole number from 1 to {LARGEST_BEAM}")


def require_threshold(name: str, value: Any) -> None:
    """A distance between natural logs, or None."""
    fits = value is None or (is_number(value) and value >= 0)
    require(fits, name, value, "a number of at least 0")


def require_weight(name: str, value: Any) -> None:
    fits = is_number(value) and abs(value) <= LARGEST_WEIGHT
    require(fits, name, value, f"a number from -{LARGEST_WEIGHT} to {LARGEST_WEIGHT}")


def require_ctc_weight(value: Any) -> None:
    """Of CTC beside another model."""
    fits = is_number(value) and 0 <= value < 1
    require(fits, "ctc_weight", value, "a number from 0 up to (not including) 1")


def require_ctc_layer(log_probs: Tensor | None, ctc_weight: float) -> Tensor:
    """A CTC layer's log_probs. Raises ``UserError`` where there is none to have that weight."""
    if log_probs is None:
        raise UserError(f"ctc_weight={ctc_weight} needs a model with a CTC layer (ctc: true); set it to 0")
    return log_probs


def require_count(name: str, value: Any) -> None:
    require(is_count(value, 1), name, value, "a whole number of at least 1")


def require_symbols_per_frame(value: Any) -> None:
    fits = is_count(value, 1) and value <= 100
    require(fits, "max_symbols_per_frame", value, "a whole number from 1 to 100")


def require_tokens_per_frame(value: Any) -> None:
    fits = is_number(value) and 0 < value <= 100
    require(fits, "max_tokens_per_frame", value, "a number above 0, up to 100")


def require_blank(blank: Any) -> None:
    require(is_count(blank, 0), "blank", blank, "a token id, 0 or more")


def require_blank_in_vocabulary(blank: int, log_probs: Tensor) -> None:
    V = log_probs.size(-1)
    require(blank < V, "blank", blank, f"below {V}, the number of tokens")


def require_blank_of_models(part: Any) -> None:
    """Of a search or an objective that meets one of the project's models: their blank is always token 0."""
    blank = getattr(getattr(part, "search", part), "blank", 0)
    require(blank == 0, "blank", blank, "0, the blank of the model")


def require_lengths(lengths: Tensor, frames: int) -> None:
    """Asked on a CPU only: a GPU would have to be waited for."""
    if lengths.device.type == "cpu":
        fits = bool((lengths <= frames).all())
        require(fits, "lengths", lengths.tolist(), f"at most {frames}, the number of frames")


def at_least_one_frame(encoded: Tensor, lengths: Tensor) -> Tensor:
    """encoded [B, T, D], whose lengths [B] must be at most T; where T is 0, with one frame that is beyond all ends."""
    require_lengths(lengths, encoded.size(1))
    return encoded if encoded.size(1) else F.pad(encoded, (0, 0, 0, 1))


def without_nan(log_probs: Tensor) -> Tensor:
    """What is no number is no probability: it becomes the log of 0."""
    return log_probs.masked_fill(log_probs.isnan(), NEVER)


def require_scorers(scorers: Any) -> None:
    def is_weighted_scorer(pair: Any) -> bool:
        return (
            isinstance(pair, list | tuple)
            and len(pair) == 2
            and all(hasattr(pair[0], name) for name in ("to", "start", "score", "advance", "finish"))
        )

    fits = isinstance(scorers, list | tuple) and all(map(is_weighted_scorer, scorers))
    require(fits, "scorers", scorers, "a list of pairs [scorer, weight]")
    for scorer, weight in scorers:
        require_weight(f"the weight of {type(scorer).__name__}", weight)
