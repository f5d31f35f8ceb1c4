"""A Transformer decoder (Vaswani et al., arXiv 1706.03762) as a speller: whole texts in training, cached in search.

Design choices: pre-norm layers, rotary positions in the self-attention, sinusoids added to the frames that it looks at
(an encoder that knows distances alone does not tell one "s" from the next), the Conformer's feed-forward module.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from src.model.dropout import Dropout
from src.model.encoders.attention import RotaryAttention
from src.model.feed_forward import FeedForward
from src.model.frame_attention import FrameAttention, audible, sinusoids
from src.model.spellers.speller import Memory, State
from src.utils.build import check_counts


class CausalAttention(RotaryAttention):
    """Rotary attention to the tokens so far."""

    def forward(self, x: Tensor, past: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """x [B, U, D] -> [B, U, D], keys and values [B, H, U, head_dim] of all tokens.

        With the keys and values of P tokens before, x is the next one: U = 1, and theirs come back with P + 1.
        """
        B, U, D = x.size()
        q, k, v = self.qkv(x).view(B, U, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4)
        P = 0 if past is None else past[0].size(2)
        cos, sin = (angle[P:] for angle in self.angles(P + U, x.device))
        q, k = self.rotate(q, cos, sin).to(v.dtype), self.rotate(k, cos, sin).to(v.dtype)
        if past is not None:
            k, v = torch.cat([past[0], k], 2), torch.cat([past[1], v], 2)
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=past is None)
        return self.output(attended.transpose(1, 2).reshape(B, U, D)), k, v


class TransformerLayer(nn.Module):
    """x + self-attention, + attention to the frames, + feed-forward."""

    def __init__(self, dim: int, num_heads: int, ff_multiple: int, dropout: float) -> None:
        super().__init__()
        self.self_norm = nn.LayerNorm(dim)
        self.self_attention = CausalAttention(dim, num_heads)
        self.frame_norm = nn.LayerNorm(dim)
        self.frame_attention = FrameAttention(dim, num_heads)
        self.feed_forward = FeedForward(dim, ff_multiple * dim, dropout)
        self.dropout = Dropout(dropout)

    def listen(self, x: Tensor, past: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor, Tensor]:
        """The self-attention: x [B, U, D] -> [B, U, D], keys and values of all tokens."""
        attended, keys, values = self.self_attention(self.self_norm(x), past)
        return x + self.dropout(attended), keys, values

    def frame_weights(self, x: Tensor, keys: Tensor, valid: Tensor) -> Tensor:
        """Where ``look`` looks, head by head: [B, H, U, T]."""
        return self.frame_attention.weights(self.frame_norm(x), keys, valid)

    def look(self, x: Tensor, keys: Tensor, values: Tensor, valid: Tensor) -> Tensor:
        """Attention to the frames, and feed-forward: [B, U, D] -> [B, U, D]."""
        x = x + self.dropout(self.frame_attention(self.frame_norm(x), keys, values, valid))
        return x + self.feed_forward(x)


class TransformerSpeller(nn.Module):
    """Embedding, Transformer layers, and a linear layer over tokens.

    Args:
        vocab_size: V, token 0 included.
        dim: of the layers and of the frames that it looks at, D.
        num_layers, num_heads, ff_multiple: as in the paper; D is an even multiple of the heads.
        dropout: on the embedding and after every module.

    Example:
        >>> speller = TransformerSpeller(vocab_size=5, dim=16, num_layers=2, num_heads=2)
        >>> speller(torch.tensor([[1, 2, 3]]), torch.randn(1, 20, 16), torch.tensor([20])).shape
        torch.Size([1, 4, 5])
    """

    def __init__(
        self,
        vocab_size: int,
        dim: int = 256,
        num_layers: int = 6,
        num_heads: int = 4,
        ff_multiple: int = 4,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        check_counts(dim=dim, num_layers=num_layers, num_heads=num_heads, ff_multiple=ff_multiple)
        self.dim, self.num_heads = dim, num_heads
        self.embedding = nn.Embedding(vocab_size, dim)
        self.layers = nn.ModuleList(
            TransformerLayer(dim, num_heads, ff_multiple, dropout) for _ in range(num_layers)
        )
        self.norm = nn.LayerNorm(dim)
        self.output = nn.Linear(dim, vocab_size)
        self.dropout = Dropout(dropout)

    def forward(self, tokens: Tensor, heard: Tensor, lengths: Tensor) -> Tensor:
        """tokens [B, U], heard [B, T, D], lengths [B] -> logits [B, U + 1, V]."""
        *memory, valid = self.remember(heard, lengths)
        x = self.dropout(self.embedding(F.pad(tokens, (1, 0))))
        for depth, layer in enumerate(self.layers):
            x = layer.look(layer.listen(x, None)[0], *memory[2 * depth : 2 * depth + 2], valid)
        return self.output(self.norm(x))

    def looked(self, tokens: Tensor, heard: Tensor, lengths: Tensor) -> Tensor:
        """As ``Speller`` has it."""
        *memory, valid = self.remember(heard, lengths)
        x = self.embedding(F.pad(tokens, (1, 0)))
        for depth, layer in enumerate(self.layers[:-1]):
            x = layer.look(layer.listen(x, None)[0], *memory[2 * depth : 2 * depth + 2], valid)
        last = self.layers[-1]
        return last.frame_weights(last.listen(x, None)[0], memory[-2], valid)

    def remember(self, heard: Tensor, lengths: Tensor) -> Memory:
        """Keys and values [B, H, T, head_dim] of each layer, and which frames are real [B, T]."""
        heard = heard + sinusoids(heard.size(1), self.dim, heard.device).to(heard.dtype)
        parts = [part for layer in self.layers for part in layer.frame_attention.remember(heard)]
        return (*parts, audible(lengths, heard.size(1)))

    def begin(self, memory: Memory, beam_size: int) -> State:
        """Keys and values of each layer's tokens so far, [n, H, 0, head_dim] each."""
        B, H, _, head_dim = memory[0].shape
        return (memory[0].new_zeros(B * beam_size, H, 0, head_dim),) * (2 * len(self.layers))

    def step(self, tokens: Tensor, state: State, memory: Memory) -> tuple[Tensor, Tensor, State]:
        """As ``Speller`` has it; the last layer tells where it looked, its heads' mean."""
        *memory, valid = memory
        shape = tokens.shape
        x, after = self.embedding(tokens), []
        for depth, layer in enumerate(self.layers):
            mine = slice(2 * depth, 2 * depth + 2)
            # Hypotheses are texts of their own for the self-attention, but look at their utterance's frames together.
            x, *cache = layer.listen(x.view(-1, 1, self.dim), state[mine])
            after += cache
            if layer is self.layers[-1]:
                weights = layer.frame_weights(x.view(*shape, -1), memory[2 * depth], valid).mean(1)
            x = layer.look(x.view(*shape, -1), *memory[mine], valid)
        return self.output(self.norm(x)), weights, tuple(after)
