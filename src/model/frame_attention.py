"""Attention of tokens or slots to the frames of an encoder, as spellers and the parallel decoder have it."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from src.utils.masks import valid_positions


def sinusoids(length: int, dim: int, device: torch.device) -> Tensor:
    """Positions as in the paper's sec. 3.5, [length, dim]; dim is even."""
    speeds = torch.exp(torch.arange(0, dim, 2, device=device) * (-math.log(10000.0) / dim))
    angles = torch.arange(length, device=device)[:, None] * speeds
    return torch.stack([angles.sin(), angles.cos()], -1).flatten(1)


def audible(lengths: Tensor, frames: int) -> Tensor:
    """[B] -> [B, T] bool: frames to look at. Of a clip without any the first, so that a softmax has something."""
    return valid_positions(lengths.clamp_min(1), frames)


def masked_softmax(scores: Tensor, valid: Tensor) -> Tensor:
    """scores [..., T] and which frames are real -> weights that sum to 1, in float32 at least."""
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
    return scores.masked_fill(~valid, float("-inf")).softmax(-1)


class FrameAttention(nn.Module):
    """Multi-head attention of tokens to frames."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query = nn.Linear(dim, dim)
        self.key_value = nn.Linear(dim, 2 * dim)
        self.output = nn.Linear(dim, dim)

    def heads(self, x: Tensor) -> Tensor:
        """[B, N, D] -> [B, H, N, head_dim]."""
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)

    def remember(self, heard: Tensor) -> tuple[Tensor, Tensor]:
        """heard [B, T, D] -> keys and values [B, H, T, head_dim]."""
        keys, values = self.key_value(heard).chunk(2, -1)
        return self.heads(keys), self.heads(values)

    def forward(self, x: Tensor, keys: Tensor, values: Tensor, valid: Tensor) -> Tensor:
        """x [B, U, D], keys and values [B, H, T, head_dim], valid [B, T] -> [B, U, D]."""
        attended = F.scaled_dot_product_attention(
            self.heads(self.query(x)), keys, values, attn_mask=valid[:, None, None]
        )
        return self.output(attended.transpose(1, 2).flatten(2))

    def weights(self, x: Tensor, keys: Tensor, valid: Tensor) -> Tensor:
        """Where ``forward`` looks: [B, H, U, T], each row sums to 1."""
        scores = (self.heads(self.query(x)) * keys.size(-1) ** -0.5) @ keys.transpose(-2, -1)
        return masked_softmax(scores, valid[:, None, None])
