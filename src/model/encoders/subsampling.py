"""Convolutional subsampling: log-mel frames in, one vector for every four of them out.

Padding is set to zero before each convolution, so a clip's vectors never depend on its neighbours.
"""

from __future__ import annotations

from torch import Tensor, nn

from src.model.encoders.convolutions import Conv2d
from src.utils.masks import valid_positions


class Conv2dSubsampling(nn.Module):
    """Two 3x3 convolutions of stride 2 over (time, frequency), then a projection (Conformer, 2005.08100, sec. 2).

    Args:
        num_features: mel bins F of the input.
        dim: width D of the output.
        channels: convolution channels; ``dim`` in the paper. Fewer are much cheaper on a CPU.
    """

    factor = 4

    def __init__(self, num_features: int, dim: int, channels: int | None = None) -> None:
        super().__init__()
        channels = channels or dim
        self.convolutions = nn.ModuleList(
            [
                Conv2d(1, channels, kernel_size=3, stride=2, padding=1),
                Conv2d(channels, channels, kernel_size=3, stride=2, padding=1),
            ]
        )
        bins = self.output_lengths(num_features)
        self.projection = nn.Linear(channels * bins, dim)

    def output_lengths(self, lengths):
        """T (int or [B] tensor) -> ceil(T / 4)."""
        for _ in self.convolutions:
            lengths = (lengths + 1) // 2
        return lengths

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """features [B, T, F], lengths [B] -> [B, ceil(T/4), D] (anything in the padding), [B]."""
        x = (features * valid_positions(lengths, features.size(1)).unsqueeze(-1)).unsqueeze(1)
        for convolution in self.convolutions:
            lengths = (lengths + 1) // 2
            x = convolution(x)
            if convolution is not self.convolutions[-1]:  # what comes after the last one looks at no padding
                x = x.mul_(valid_positions(lengths, x.size(2))[:, None, :, None])
            x = x.relu_()
        B, C, T, bins = x.size()
        x = x.permute(0, 2, 1, 3).reshape(B, T, C * bins)
        return self.projection(x), lengths
