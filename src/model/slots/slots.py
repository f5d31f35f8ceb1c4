"""One vector for each token, all at once: what stands between an encoder and a decoder that writes in parallel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


def first_frame(belongs: Tensor) -> Tensor:
    """Whether a frame is part of a slot [B, U, T] -> the first one of each slot [B, U], 0 where there is none."""
    if not belongs.size(2):
        return belongs.new_zeros(belongs.shape[:2], dtype=torch.long)
    return belongs.byte().argmax(2)


@dataclass
class Slots:
    """What is heard of each token.

    ``weights[b, u]`` says which frames slot u is made of; the rows of a real slot sum to 1, the others are zero.
    """

    vectors: Tensor  # [B, U, D]
    lengths: Tensor  # [B] how many slots are real
    weights: Tensor  # [B, U, T]
    times: Tensor  # [B, U] the frame in which each slot begins: the first one that it is made of
    # [B] how many tokens the predictor heard, a real number that training corrects
    counted: Tensor | None = None
    # Whether an alignment of the targets says where they are: then they have been seen, and more than their number.
    aligned: bool = False


class SlotPredictor(Protocol):
    """Finds the slots. With ``targets``, in training, there are as many as the text has tokens."""

    def __call__(
        self,
        encoded: Tensor,
        lengths: Tensor,
        log_probs: Tensor | None = None,
        targets: tuple[Tensor, Tensor] | None = None,
    ) -> Slots:
        """encoded [B, T, D], lengths [B], CTC's log_probs [B, T, V] if there are any, targets: tokens [B, U] and their
        lengths [B]."""
