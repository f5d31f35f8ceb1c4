"""Dropout (Srivastava et al., 2014), several times faster than ``nn.Dropout`` on a CPU."""

from __future__ import annotations

import torch
from torch import Tensor, nn

LEVELS = 2**16


class Dropout(nn.Module):
    """Zeroes elements with probability p while training, and scales the others by 1 / (1 - p).

    On a CPU most of ``nn.Dropout``'s time goes into one generator call an element; here each 64-bit draw decides
    four elements, which rounds p to a multiple of 2^-16. Elsewhere it is ``nn.Dropout``.

    Example:
        >>> dropped = Dropout(0.25)(torch.ones(1000, 1000))
        >>> sorted(round(value, 3) for value in dropped.unique().tolist()), round(dropped.mean().item(), 2)
        ([0.0, 1.333], 1.0)
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        if not 0 <= p < 1:
            raise ValueError(f"dropout={p}; give a probability from 0 up to (not including) 1")
        self.p = p

    def extra_repr(self) -> str:
        return f"p={self.p}"

    def forward(self, x: Tensor) -> Tensor:
        """Any shape -> the same."""
        if not self.training or self.p == 0:
            return x
        if x.device.type != "cpu":
            return nn.functional.dropout(x, self.p)
        dropped_levels = round(self.p * LEVELS)
        draws = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
        kept = draws.view(torch.int16)[: x.numel()].view(x.shape) >= dropped_levels - LEVELS // 2
        return x * (kept * (LEVELS / (LEVELS - dropped_levels))).to(x.dtype)
