"""QFormer (Li et al., arXiv 2301.12597) over windows: a few learnt queries ask each stretch of frames."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from src.model.projectors.projector import Projector
from src.utils.build import check_counts
from src.utils.errors import UserError
from src.utils.masks import valid_positions


class QFormerProjector(Projector):
    """``queries`` vectors for each ``window`` frames, ceil(T / window) * queries of a clip.

    Each layer: attention among the queries, attention to the window's frames, and a feed-forward network of 4 E, each
    with a residual connection and LayerNorm after it; then Linear(E, H).

    q E + layers (16 E^2 + 19 E) + (E + 1) H parameters.

    Args:
        window: frames that a group of queries sees.
        queries: q, vectors for each window.
        num_layers, num_heads, dropout: of the layers.

    Example:
        >>> projector = QFormerProjector(num_heads=2).connect(dim_in=16, dim_out=8).eval()
        >>> projected = projector(torch.randn(2, 40, 16), torch.tensor([40, 30]))
        >>> projected.vectors.shape, projected.lengths.tolist()
        (torch.Size([2, 9, 8]), [9, 6])
    """

    def __init__(
        self,
        window: int = 15,
        queries: int = 3,
        num_layers: int = 2,
        num_heads: int = 16,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        check_counts(window=window, queries=queries, num_layers=num_layers, num_heads=num_heads)
        self.window, self.num_queries = window, queries
        self.num_layers, self.num_heads, self.dropout = num_layers, num_heads, dropout

    def make_layers(self, dim_in: int, dim_out: int) -> None:
        if dim_in % self.num_heads:
            raise UserError(
                f"projector.num_heads={self.num_heads} does not divide the encoder's width {dim_in}; choose a divisor"
            )
        self.queries = nn.Parameter(torch.randn(self.num_queries, dim_in) * 0.02)
        self.blocks = nn.ModuleList(
            nn.TransformerDecoderLayer(
                dim_in, self.num_heads, 4 * dim_in, self.dropout, F.gelu, batch_first=True
            )
            for _ in range(self.num_layers)
        )
        self.head = nn.Linear(dim_in, dim_out)

    def output_lengths(self, lengths: Tensor) -> Tensor:
        return (lengths + self.window - 1) // self.window * self.num_queries

    def project(self, encoded: Tensor, lengths: Tensor) -> tuple[Tensor, None]:
        B, T, E = encoded.shape
        frames = F.pad(encoded, (0, 0, 0, -T % self.window))
        real = valid_positions(lengths, frames.size(1)).view(-1, self.window)  # [B W, window]
        real = real | ~real.any(1, keepdim=True)  # a window without a frame still needs something to look at
        frames = frames.view(len(real), self.window, E)
        x = self.queries.expand(len(real), -1, -1)
        for block in self.blocks:
            x = block(x, frames, memory_key_padding_mask=~real)
        return self.head(x).view(B, -1, self.dim_out), None
