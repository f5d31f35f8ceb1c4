"""Normalisation by name. Layer norm is the default: it cannot see a clip's neighbours at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor, nn

COUNTING = ContextVar("counting", default=True)  # whether running statistics move with what is computed


@contextmanager
def running_statistics_kept() -> Iterator[None]:
    """Within the block batch norm leaves its running statistics alone: for a forward pass that is a repetition."""
    token = COUNTING.set(False)
    try:
        yield
    finally:
        COUNTING.reset(token)


class FrameLayerNorm(nn.LayerNorm):
    """Layer norm over the channels of each frame; takes the mask only to share batch norm's interface."""

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """x [B, T, D], valid [B, T] -> [B, T, D]."""
        return super().forward(x)


class MaskedBatchNorm(nn.Module):
    """Batch norm whose statistics count real frames only (padding would make WER change with the batch).

    Over [B, T, D] with a mask [B, T]; running estimates are used in evaluation, as in ``nn.BatchNorm1d``.
    """

    def __init__(self, dim: int, momentum: float = 0.1, eps: float = 1e-5) -> None:
        super().__init__()
        self.momentum, self.eps = momentum, eps
        self.weight = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim))
        self.register_buffer("running_mean", torch.zeros(dim))
        self.register_buffer("running_var", torch.ones(dim))

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """x [B, T, D], valid [B, T] bool -> [B, T, D], in x's dtype."""
        values = x.float()
        if self.training:
            weight = valid.unsqueeze(-1).float()
            count = weight.sum().clamp_min(1.0)
            mean = (values * weight).sum((0, 1)) / count
            var = ((values - mean).square() * weight).sum((0, 1)) / count
            if COUNTING.get():
                self._count(mean, var, count)
        else:
            mean, var = self.running_mean, self.running_var
        scale = self.weight * torch.rsqrt(var + self.eps)
        return ((values - mean) * scale + self.bias).to(x.dtype)

    @torch.no_grad()
    def _count(self, mean: Tensor, var: Tensor, count: Tensor) -> None:
        unbiased = var * count / (count - 1).clamp_min(1.0)
        for running, value in ((self.running_mean, mean), (self.running_var, unbiased)):
            # One overflow in fp16 must not poison every later evaluation.
            running.lerp_(torch.where(value.isfinite(), value, running), self.momentum)


NORMS = {"layer": FrameLayerNorm, "batch": MaskedBatchNorm}


def build_norm(name: str, dim: int) -> nn.Module:
    """``layer`` or ``batch``; both are called as ``norm(x, valid)``."""
    if name not in NORMS:
        raise ValueError(f"norm={name!r} is unknown; choose one of {sorted(NORMS)}")
    return NORMS[name](dim)
