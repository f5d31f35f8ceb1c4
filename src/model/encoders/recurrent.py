"""Recurrence in both directions, each from a clip's own end."""

from __future__ import annotations

import torch
from torch import Tensor, nn

CELLS = {"gru": nn.GRU, "lstm": nn.LSTM}


class BidirectionalLayer(nn.Module):
    """Two recurrences over each clip's real frames: from the first one on, and from the last one back.

    Clips are reversed instead of packed: padding then comes last for both, and no frame before it hears it.
    (Packing waits for the lengths on the host, and its gradient on a CPU takes time quadratic in the frames.)

    Example:
        >>> layer = BidirectionalLayer("gru", 8, 16)
        >>> layer(torch.randn(2, 10, 8), torch.tensor([10, 7])).shape
        torch.Size([2, 10, 32])
    """

    def __init__(self, cell: str, width: int, hidden_dim: int) -> None:
        super().__init__()
        self.forward_rnn = CELLS[cell](width, hidden_dim, batch_first=True)
        self.backward_rnn = CELLS[cell](width, hidden_dim, batch_first=True)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """x [B, T, D], lengths [B] -> [B, T, 2 hidden_dim]; what lies behind a clip's end means nothing."""
        frames = torch.arange(x.size(1), device=x.device)
        mirror = torch.where(frames < lengths[:, None], lengths[:, None] - 1 - frames, frames).unsqueeze(-1)
        ahead, _ = self.forward_rnn(x)
        back, _ = self.backward_rnn(x.gather(1, mirror.expand_as(x)))
        return torch.cat([ahead, back.gather(1, mirror.expand_as(back))], dim=-1)
