"""Self-attention for speech: relative positions as in the Conformer paper, or rotary positions through SDPA.

Both see real frames only and know distances, not absolute positions, so a clip's result does not depend
on how far its batch is padded.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class RotaryAttention(nn.Module):
    """Multi-head attention with rotary positions (RoFormer, 2104.09864), computed by PyTorch's fused kernel.

    The rotation turns each pair of channels of q and k by an angle proportional to the frame's index, so the
    product of q and k depends on the distance alone.
    """

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        if dim % num_heads or (dim // num_heads) % 2:
            raise ValueError(f"dim={dim} must be an even multiple of num_heads={num_heads}")
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.output = nn.Linear(dim, dim)
        self.head_dim = dim // num_heads

    def angles(self, length: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """cos and sin of [length, head_dim / 2] rotation angles, float32."""
        half = self.head_dim // 2
        inverse_frequencies = 10000.0 ** (-torch.arange(half, device=device, dtype=torch.float32) / half)
        angles = torch.arange(length, device=device, dtype=torch.float32)[:, None] * inverse_frequencies
        return angles.cos(), angles.sin()

    @staticmethod
    def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Turns channel pairs (i, i + half) of x [B, H, T, head_dim]; float32."""
        left, right = x.float().chunk(2, dim=-1)
        return torch.cat([left * cos - right * sin, left * sin + right * cos], dim=-1)

    def values(self, x: Tensor) -> Tensor:
        """x [B, T, D] -> its values alone [B, T, D], head beside head."""
        D = x.size(2)
        return F.linear(x, self.qkv.weight[-D:], self.qkv.bias[-D:])

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """x [B, T, D], valid [B, T] bool with at least one True per row -> [B, T, D]."""
        B, T, D = x.size()
        q, k, v = self.qkv(x).view(B, T, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4)
        cos, sin = self.angles(T, x.device)
        q, k = self.rotate(q, cos, sin), self.rotate(k, cos, sin)
        q, k = q.to(v.dtype), k.to(v.dtype)
        if x.device.type == "cpu" and v.dtype == torch.bfloat16:
            attended = self.in_bf16_on_a_cpu(q, k, v, valid)
        else:
            attended = F.scaled_dot_product_attention(q, k, v, attn_mask=valid[:, None, None, :])
        return self.output(attended.transpose(1, 2).reshape(B, T, D))

    @staticmethod
    def in_bf16_on_a_cpu(q: Tensor, k: Tensor, v: Tensor, valid: Tensor) -> Tensor:
        """The same in steps, q, k, v [B, H, T, head_dim]: half the time of the fused kernel, forward and backward."""
        B, H, T, head_dim = q.size()
        with torch.autocast("cpu", enabled=False):
            bias = torch.zeros(B, 1, T, dtype=q.dtype).masked_fill_(~valid[:, None], float("-inf"))
            scaled = (q * head_dim**-0.5).flatten(0, 1)  # [B H, T, head_dim]
            scores = torch.baddbmm(bias.repeat_interleave(H, 0), scaled, k.flatten(0, 1).transpose(1, 2))
            return (scores.softmax(-1) @ v.flatten(0, 1)).view(B, H, T, head_dim)


class RelativeAttention(nn.Module):
    """Multi-head attention with sinusoidal relative positions (Transformer-XL, 1901.02860, sec. 3.3).

    score(i, j) = ((q_i + u) k_j + (q_i + v) W_r r_{i-j}) / sqrt(head_dim); u and v are learnt per head.
    """

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        if dim % num_heads or dim % 2:
            raise ValueError(f"dim={dim} must be even and a multiple of num_heads={num_heads}")
        self.num_heads = num_heads
        self.head_dim = dim // num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.position = nn.Linear(dim, dim, bias=False)
        self.content_bias = nn.Parameter(torch.zeros(num_heads, 1, self.head_dim))
        self.position_bias = nn.Parameter(torch.zeros(num_heads, 1, self.head_dim))
        self.output = nn.Linear(dim, dim)

    @staticmethod
    def sinusoids(length: int, dim: int, device: torch.device) -> Tensor:
        """[2 length - 1, dim]: row r encodes the distance length - 1 - r (from the future to the past)."""
        distances = torch.arange(length - 1, -length, -1, device=device, dtype=torch.float32)
        inverse_frequencies = torch.exp(torch.arange(0, dim, 2, device=device) * (-math.log(10000.0) / dim))
        angles = distances[:, None] * inverse_frequencies
        return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)

    @staticmethod
    def shift(scores: Tensor) -> Tensor:
        """[B, H, T, 2T-1] by distance -> [B, H, T, T] by key: row i reads columns T-1-i .. 2T-2-i."""
        B, H, T, R = scores.size()
        # A row is one shorter than its stride after padding, so re-viewing slides each row by one more.
        padded = F.pad(scores, (1, 0)).view(B, H, R + 1, T)
        return padded[:, :, 1:].view(B, H, T, R)[..., :T]

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """x [B, T, D], valid [B, T] bool with at least one True per row -> [B, T, D]."""
        B, T, D = x.size()
        q, k, v = self.qkv(x).view(B, T, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4)
        r = self.position(self.sinusoids(T, D, x.device).to(x.dtype))
        r = r.view(-1, self.num_heads, self.head_dim).transpose(0, 1)  # [H, 2T-1, head_dim]
        scale = self.head_dim**-0.5  # before the products, which fp16 might not hold
        content = ((q + self.content_bias) * scale) @ k.transpose(-2, -1)
        position = self.shift(((q + self.position_bias) * scale) @ r.transpose(-2, -1))
        scores = (content + position).float()
        weights = scores.masked_fill(~valid[:, None, None, :], float("-inf")).softmax(-1).to(v.dtype)
        attended = weights @ v
        return self.output(attended.transpose(1, 2).reshape(B, T, D))


ATTENTIONS = {"rotary": RotaryAttention, "relative": RelativeAttention}
