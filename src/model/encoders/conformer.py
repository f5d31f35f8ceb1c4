"""Conformer encoder (Gulati et al., arXiv 2005.08100), written for variable lengths.

Design choices: pre-norm blocks exactly as in the paper (half feed-forward, attention, convolution, half
feed-forward, layer norm); layer norm instead of batch norm inside the convolution by default; every module
that mixes frames (attention, both kinds of convolution) is masked.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from src.model.dropout import Dropout
from src.model.encoders.attention import ATTENTIONS
from src.model.encoders.convolutions import DepthwiseConv1d
from src.model.encoders.subsampling import Conv2dSubsampling
from src.model.feed_forward import FeedForward
from src.model.normalization import build_norm, running_statistics_kept
from src.utils.masks import valid_positions


class ConvolutionModule(nn.Module):
    """LayerNorm, pointwise, GLU, depthwise, norm, Swish, pointwise, dropout (paper, fig. 2)."""

    def __init__(self, dim: int, kernel_size: int, dropout: float, norm: str) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.gate = nn.Linear(dim, 2 * dim)
        self.depthwise = DepthwiseConv1d(dim, kernel_size)
        self.depthwise_norm = build_norm(norm, dim)
        self.output = nn.Linear(dim, dim)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """x [B, T, D], valid [B, T] -> [B, T, D]."""
        x = F.glu(self.gate(self.norm(x)), dim=-1) * valid.unsqueeze(-1)
        x = F.silu(self.depthwise_norm(self.depthwise(x), valid))
        return self.dropout(self.output(x))


class ConformerBlock(nn.Module):
    """x + FFN/2, + attention, + convolution, + FFN/2, LayerNorm (paper, eq. 1)."""

    def __init__(
        self,
        dim: int,
        num_heads: int,
        ff_multiple: int,
        kernel_size: int,
        dropout: float,
        attention: str,
        norm: str,
    ) -> None:
        super().__init__()
        self.feed_forward_in = FeedForward(dim, ff_multiple * dim, dropout)
        self.attention_norm = nn.LayerNorm(dim)
        self.attention = ATTENTIONS[attention](dim, num_heads)
        self.convolution = ConvolutionModule(dim, kernel_size, dropout, norm)
        self.feed_forward_out = FeedForward(dim, ff_multiple * dim, dropout)
        self.norm = nn.LayerNorm(dim)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """x [B, T, D], valid [B, T] -> [B, T, D]."""
        # A clip without a single frame would leave the softmax nothing to attend to.
        attended = valid | (torch.arange(x.size(1), device=x.device) == 0)
        x = torch.add(x, self.feed_forward_in(x), alpha=0.5)
        x = x + self.dropout(self.attention(self.attention_norm(x), attended))
        x = x + self.convolution(x, valid)
        x = torch.add(x, self.feed_forward_out(x), alpha=0.5)
        return self.norm(x)


class ConformerEncoder(nn.Module):
    """Subsampling by 4, then ``num_layers`` Conformer blocks.

    Args:
        num_features: F of the frontend.
        dim, num_layers, num_heads, kernel_size: S 144/16/4/31, M 256/17/4/31, L 512/18/8/31 in the paper.
        ff_multiple: expansion of the feed-forward modules.
        dropout: after every module and inside the feed-forward (the paper's sec. 3.2).
        attention: ``relative`` (the paper's) or ``rotary`` (faster: PyTorch's fused attention).
        norm: of the convolution module; ``layer`` or ``batch`` (the paper's, here ignoring padding).
        subsampling_channels: channels of the subsampling; ``dim`` when not given.
        checkpoint_activations: in training keep only each block's input and compute the block again for its
            gradient: the same numbers in less memory, for about a third more time.

    Example:
        >>> encoder = ConformerEncoder(80, dim=32, num_layers=2, num_heads=4, kernel_size=7)
        >>> encoded, lengths = encoder(torch.randn(2, 100, 80), torch.tensor([100, 50]))
        >>> encoded.shape, lengths.tolist()
        (torch.Size([2, 25, 32]), [25, 13])
    """

    def __init__(
        self,
        num_features: int,
        dim: int = 144,
        num_layers: int = 16,
        num_heads: int = 4,
        kernel_size: int = 31,
        ff_multiple: int = 4,
        dropout: float = 0.1,
        attention: str = "rotary",
        norm: str = "layer",
        subsampling_channels: int | None = None,
        checkpoint_activations: bool = False,
    ) -> None:
        super().__init__()
        if attention not in ATTENTIONS:
            raise ValueError(f"attention={attention!r} is unknown; choose one of {sorted(ATTENTIONS)}")
        self.dim = dim
        self.subsampling = Conv2dSubsampling(num_features, dim, subsampling_channels)
        self.dropout = Dropout(dropout)
        self.checkpoint_activations = checkpoint_activations
        self.blocks = nn.ModuleList(
            ConformerBlock(dim, num_heads, ff_multiple, kernel_size, dropout, attention, norm)
            for _ in range(num_layers)
        )

    @property
    def subsampling_factor(self) -> int:
        """Frontend frames per encoder frame."""
        return self.subsampling.factor

    def forward(self, features: Tensor, feature_lengths: Tensor) -> tuple[Tensor, Tensor]:
        """features [B, T, F], feature_lengths [B] -> encoded [B, T', D] (padding is zero), encoded_lengths [B]."""
        x, lengths = self.subsampling(features, feature_lengths)
        valid = valid_positions(lengths, x.size(1))
        x = self.dropout(x)
        for block in self.blocks:
            if self.checkpoint_activations and self.training and torch.is_grad_enabled():
                x = checkpoint(block, x, valid, use_reentrant=False, context_fn=_first_and_again)
            else:
                x = block(x, valid)
        return x * valid.unsqueeze(-1), lengths


def _first_and_again() -> tuple[AbstractContextManager, AbstractContextManager]:
    """The surroundings of a block's forward pass, and of its repetition for the gradient."""
    return nullcontext(), running_statistics_kept()
