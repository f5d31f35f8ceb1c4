"""DeepSpeech2 encoder (Amodei et al., arXiv 1512.02595): 2-D convolutions, then deep bidirectional recurrence.

Design choices: masked convolutions; normalisation between layers that ignores padding.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from src.model.dropout import Dropout
from src.model.encoders.convolutions import Conv2d
from src.model.encoders.recurrent import CELLS, BidirectionalLayer
from src.model.normalization import build_norm
from src.utils.masks import valid_positions


class DeepSpeech2Encoder(nn.Module):
    """Two convolutions of (time, frequency) stride (2, 2), (time_stride, 2), then bidirectional layers.

    Args:
        num_features: F of the frontend.
        hidden_dim: units per direction; the encoded width D is twice that.
        num_layers: recurrent layers.
        cell: ``gru`` or ``lstm``.
        channels: convolution channels (32 in the paper).
        time_stride: of the second convolution: 1 gives 20 ms frames as in the paper, 2 gives 40 ms.
        norm: after every convolution and recurrent layer: ``layer`` or ``batch`` (in the paper, of a layer's input).
        dropout: between layers.

    Example:
        >>> import torch
        >>> encoder = DeepSpeech2Encoder(80, hidden_dim=16, num_layers=2)
        >>> encoded, lengths = encoder(torch.randn(2, 100, 80), torch.tensor([100, 50]))
        >>> encoded.shape, lengths.tolist()
        (torch.Size([2, 50, 32]), [50, 25])
    """

    def __init__(
        self,
        num_features: int,
        hidden_dim: int = 512,
        num_layers: int = 5,
        cell: str = "gru",
        channels: int = 32,
        time_stride: int = 1,
        norm: str = "layer",
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        if cell not in CELLS:
            raise ValueError(f"cell={cell!r} is unknown; choose one of {sorted(CELLS)}")
        self.dim = 2 * hidden_dim
        self.strides = (2, time_stride)
        self.convolutions = nn.ModuleList(
            [
                Conv2d(1, channels, (11, 41), stride=(2, 2), padding=(5, 20)),
                Conv2d(channels, channels, (11, 21), stride=(time_stride, 2), padding=(5, 10)),
            ]
        )
        bins = num_features
        self.convolution_norms = nn.ModuleList()
        for _ in self.convolutions:
            bins = (bins + 1) // 2
            self.convolution_norms.append(build_norm(norm, channels * bins))
        widths = [channels * bins] + [self.dim] * (num_layers - 1)
        self.recurrent = nn.ModuleList(BidirectionalLayer(cell, width, hidden_dim) for width in widths)
        self.recurrent_norms = nn.ModuleList(build_norm(norm, self.dim) for _ in range(num_layers))
        self.dropout = Dropout(dropout)

    @property
    def subsampling_factor(self) -> int:
        """Frontend frames per encoder frame."""
        return self.strides[0] * self.strides[1]

    def forward(self, features: Tensor, feature_lengths: Tensor) -> tuple[Tensor, Tensor]:
        """features [B, T, F], feature_lengths [B] -> encoded [B, T', D] (padding is zero), encoded_lengths [B]."""
        x, lengths = features, feature_lengths
        x = x.unsqueeze(1)  # [B, 1, T, F]
        for convolution, norm, stride in zip(
            self.convolutions, self.convolution_norms, self.strides, strict=True
        ):
            x = convolution(x * valid_positions(lengths, x.size(2))[:, None, :, None])
            lengths = (lengths + stride - 1) // stride
            B, C, T, bins = x.size()
            valid = valid_positions(lengths, T)
            frames = norm(x.permute(0, 2, 1, 3).reshape(B, T, C * bins), valid)
            x = F.hardtanh(frames, 0.0, 20.0).view(B, T, C, bins).permute(0, 2, 1, 3)
        x = x.permute(0, 2, 1, 3).reshape(B, T, C * bins)
        for layer, norm in zip(self.recurrent, self.recurrent_norms, strict=True):
            x = norm(layer(self.dropout(x), lengths), valid)
        return x * valid.unsqueeze(-1), lengths
