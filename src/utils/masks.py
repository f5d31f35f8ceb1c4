"""Padding masks. True always means: this position is real."""

from __future__ import annotations

import torch
from torch import Tensor

NEVER = float("-inf")  # log of 0: what a mask leaves out, and what cannot be


def valid_positions(lengths: Tensor, max_length: int) -> Tensor:
    """[B] lengths -> [B, max_length] bool, True inside the sequence.

    >>> valid_positions(torch.tensor([1, 3]), 3).int().tolist()
    [[1, 0, 0], [1, 1, 1]]
    """
    return torch.arange(max_length, device=lengths.device) < lengths[:, None]
