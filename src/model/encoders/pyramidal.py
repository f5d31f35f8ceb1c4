"""The listener of Listen, Attend and Spell (Chan et al., arXiv 1508.01211): a pyramid of bidirectional LSTMs."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from src.model.dropout import Dropout
from src.model.encoders.recurrent import BidirectionalLayer
from src.model.normalization import build_norm
from src.utils.masks import valid_positions


class PyramidalEncoder(nn.Module):
    """A bidirectional LSTM, and more of them, each of which hears two neighbouring frames of the one below as one.

    A last frame without a neighbour hears silence beside it.

    Args:
        num_features: F of the frontend.
        hidden_dim: units per direction (256 in the paper); the encoded width D is twice that.
        num_layers: how many layers halve the frames (3 in the paper: 80 ms a frame); with the one below them, which
            hears every frame, there are num_layers + 1 LSTMs.
        norm: after every layer: ``layer`` or ``batch``; the paper has none.
        dropout: between layers.

    Example:
        >>> import torch
        >>> encoder = PyramidalEncoder(80, hidden_dim=16)
        >>> encoded, lengths = encoder(torch.randn(2, 100, 80), torch.tensor([100, 50]))
        >>> encoded.shape, lengths.tolist()
        (torch.Size([2, 13, 32]), [13, 7])
    """

    def __init__(
        self,
        num_features: int,
        hidden_dim: int = 256,
        num_layers: int = 3,
        norm: str = "layer",
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.dim = 2 * hidden_dim
        self.subsampling_factor = 2**num_layers  # frontend frames per encoder frame
        widths = [num_features] + [2 * self.dim] * num_layers
        self.layers = nn.ModuleList(BidirectionalLayer("lstm", width, hidden_dim) for width in widths)
        self.norms = nn.ModuleList(build_norm(norm, self.dim) for _ in widths)
        self.dropout = Dropout(dropout)

    def forward(self, features: Tensor, feature_lengths: Tensor) -> tuple[Tensor, Tensor]:
        """features [B, T, F], feature_lengths [B] -> encoded [B, T', D] (padding is zero), encoded_lengths [B]."""
        x, lengths = features, feature_lengths
        for depth, (layer, norm) in enumerate(zip(self.layers, self.norms, strict=True)):
            if depth:
                x, lengths = _pairs(self.dropout(x)), (lengths + 1) // 2
            valid = valid_positions(lengths, x.size(1))
            x = norm(layer(x, lengths), valid) * valid.unsqueeze(-1)
        return x, lengths


def _pairs(x: Tensor) -> Tensor:
    """[B, T, D] -> [B, ceil(T / 2), 2 D]: neighbours side by side."""
    B, T, D = x.shape
    return F.pad(x, (0, 0, 0, T % 2)).reshape(B, (T + 1) // 2, 2 * D)
