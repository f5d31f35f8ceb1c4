"""A decoder that writes all tokens of a text at once: every slot sees all others, and all frames."""

from __future__ import annotations

from torch import Tensor, nn

from src.model.dropout import Dropout
from src.model.encoders.attention import RotaryAttention
from src.model.encoders.convolutions import DepthwiseConv1d
from src.model.feed_forward import FeedForward
from src.model.frame_attention import FrameAttention, audible, sinusoids


class MemoryAttention(RotaryAttention):
    """Attention plus a memory of the neighbours: a filter a channel over the values (SAN-M, 2006.01713, eq. 5)."""

    def __init__(self, dim: int, num_heads: int, kernel_size: int) -> None:
        super().__init__(dim, num_heads)
        self.memory = DepthwiseConv1d(dim, kernel_size)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """x [B, U, D], valid [B, U] -> [B, U, D]."""
        values = self.values(x) * valid.unsqueeze(2)
        return super().forward(x, valid) + values + self.memory(values)


class ParallelLayer(nn.Module):
    """x + attention to all slots, + attention to the frames, + feed-forward."""

    def __init__(
        self, dim: int, num_heads: int, ff_multiple: int, memory_kernel: int | None, dropout: float
    ) -> None:
        super().__init__()
        self.slot_norm = nn.LayerNorm(dim)
        self.slot_attention = (
            MemoryAttention(dim, num_heads, memory_kernel)
            if memory_kernel
            else RotaryAttention(dim, num_heads)
        )
        self.frame_norm = nn.LayerNorm(dim)
        self.frame_attention = FrameAttention(dim, num_heads)
        self.feed_forward = FeedForward(dim, ff_multiple * dim, dropout)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, real: Tensor, heard: Tensor, valid: Tensor) -> Tensor:
        """x [B, U, D], which slots are real [B, U], heard [B, T, D], which frames are [B, T] -> [B, U, D]."""
        x = x + self.dropout(self.slot_attention(self.slot_norm(x), real))
        x = x + self.dropout(
            self.frame_attention(self.frame_norm(x), *self.frame_attention.remember(heard), valid)
        )
        return x + self.feed_forward(x)

    def frame_weights(self, x: Tensor, real: Tensor, heard: Tensor, valid: Tensor) -> Tensor:
        """Where the attention to the frames looks, head by head: [B, H, U, T]."""
        x = x + self.slot_attention(self.slot_norm(x), real)
        return self.frame_attention.weights(
            self.frame_norm(x), self.frame_attention.remember(heard)[0], valid
        )


class ParallelDecoder(nn.Module):
    """Transformer layers without a causal mask (Gao et al., arXiv 2206.08317, sec. 2.2).

    Args:
        vocab_size: V, token 0 included, which no text holds.
        dim: of slots, frames and layers, D.
        num_layers, num_heads, ff_multiple: 6, 4 and 8 in the paper.
        memory_kernel: width of the memory beside the attention to the slots (11 in the paper); None: no memory.
        dropout: after every module.

    Example:
        >>> import torch
        >>> decoder = ParallelDecoder(vocab_size=5, dim=16, num_layers=2, num_heads=2)
        >>> decoder(torch.randn(1, 3, 16), torch.tensor([3]), torch.randn(1, 20, 16), torch.tensor([20])).shape
        torch.Size([1, 3, 5])
    """

    def __init__(
        self,
        vocab_size: int,
        dim: int = 256,
        num_layers: int = 6,
        num_heads: int = 4,
        ff_multiple: int = 4,
        memory_kernel: int | None = None,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.dim = dim
        self.embedding = nn.Embedding(vocab_size, dim)
        self.layers = nn.ModuleList(
            ParallelLayer(dim, num_heads, ff_multiple, memory_kernel, dropout) for _ in range(num_layers)
        )
        self.norm = nn.LayerNorm(dim)
        self.output = nn.Linear(dim, vocab_size)
        self.dropout = Dropout(dropout)

    def forward(self, slots: Tensor, slot_lengths: Tensor, heard: Tensor, lengths: Tensor) -> Tensor:
        """slots [B, U, D], slot_lengths [B], heard [B, T, D], lengths [B] -> logits [B, U, V]."""
        if not slots.size(1):
            return slots.new_zeros(*slots.shape[:2], self.output.out_features)
        x, *inputs = self._prepared(slots, slot_lengths, heard, lengths)
        for layer in self.layers:
            x = layer(x, *inputs)
        return self.output(self.norm(x))

    def looked(self, slots: Tensor, slot_lengths: Tensor, heard: Tensor, lengths: Tensor) -> Tensor:
        """As ``forward`` -> where the last layer's heads look, [B, H, U, T]; rows sum to 1."""
        x, *inputs = self._prepared(slots, slot_lengths, heard, lengths)
        for layer in self.layers[:-1]:
            x = layer(x, *inputs)
        return self.layers[-1].frame_weights(x, *inputs)

    def _prepared(
        self, slots: Tensor, slot_lengths: Tensor, heard: Tensor, lengths: Tensor
    ) -> tuple[Tensor, ...]:
        heard = heard + sinusoids(heard.size(1), self.dim, heard.device).to(heard.dtype)
        real = audible(slot_lengths, slots.size(1))
        return self.dropout(slots), real, heard, audible(lengths, heard.size(1))
