"""The plainest encoder there is: stacked frames through a multilayer perceptron, for the one-batch test."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from src.model.dropout import Dropout
from src.utils.masks import valid_positions


class MLPEncoder(nn.Module):
    """Stacks ``stack`` frames and sends each stack through ``num_layers`` ReLU layers; stacks never meet.

    Example:
        >>> encoded, lengths = MLPEncoder(80, dim=64)(torch.randn(2, 10, 80), torch.tensor([10, 5]))
        >>> encoded.shape, lengths.tolist()
        (torch.Size([2, 5, 64]), [5, 3])
    """

    def __init__(
        self, num_features: int, dim: int = 256, num_layers: int = 3, stack: int = 2, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.dim, self.subsampling_factor = dim, stack
        widths = [num_features * stack] + [dim] * num_layers
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in zip(widths[:-1], widths[1:], strict=True))
        self.dropout = Dropout(dropout)

    def forward(self, features: Tensor, feature_lengths: Tensor) -> tuple[Tensor, Tensor]:
        """features [B, T, F], feature_lengths [B] -> encoded [B, ceil(T / stack), D], encoded_lengths [B]."""
        B, T, bins = features.size()
        stack = self.subsampling_factor
        x = F.pad(features, (0, 0, 0, -T % stack)).view(B, -1, stack * bins)
        lengths = (feature_lengths + stack - 1) // stack
        for layer in self.layers:
            x = self.dropout(torch.relu(layer(x)))
        return x * valid_positions(lengths, x.size(1)).unsqueeze(-1), lengths
