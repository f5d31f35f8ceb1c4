"""The feed-forward module of Conformer blocks and of Transformer layers."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from src.model.dropout import Dropout


class FeedForward(nn.Module):
    """LayerNorm, Linear x4, Swish, dropout, Linear, dropout (Conformer paper, fig. 4)."""

    def __init__(self, dim: int, hidden_dim: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.expand = nn.Linear(dim, hidden_dim)
        self.contract = nn.Linear(hidden_dim, dim)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, D] -> [B, T, D]."""
        return self.dropout(self.contract(self.dropout(F.silu(self.expand(self.norm(x))))))
