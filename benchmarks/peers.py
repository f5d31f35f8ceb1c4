"""Conformer encoders of other packages behind Lectern's encoder interface, all of one size.

Each gets the same dropout of 0.1 on what its modules return, and none on attention weights where that can be chosen
(so that its fused attention may run). Packages without a subsampling of their own get the same convolutions as
Lectern's, written with PyTorch's ``nn.Conv2d``; or Lectern's own (``Size.shares_subsampling``).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from src.model.encoders.subsampling import Conv2dSubsampling
from src.utils.masks import valid_positions

DROPOUT = 0.1


@dataclass(frozen=True)
class Size:
    """What is equal for all encoders."""

    num_features: int
    dim: int
    num_layers: int
    num_heads: int
    kernel_size: int
    subsampling_channels: int | None
    shares_subsampling: bool = False

    @property
    def ff_dim(self) -> int:
        return 4 * self.dim


class Peer(nn.Module):
    """(features [B, T, F], lengths [B]) -> (encoded [B, T', D], lengths [B]), as ``CTCModel`` wants it."""

    subsampling_factor = 4

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.dim = size.dim
        self.subsampling = Conv2dSubsampling(size.num_features, size.dim, size.subsampling_channels)
        if not size.shares_subsampling:
            plain = [
                nn.Conv2d(own.in_channels, own.out_channels, own.kernel_size, own.stride, own.padding)
                for own in self.subsampling.convolutions
            ]
            self.subsampling.convolutions = nn.ModuleList(plain)
        self.build(size)

    def build(self, size: Size) -> None:
        """Makes the package's own blocks."""
        raise NotImplementedError

    def forward(self, features: Tensor, feature_lengths: Tensor) -> tuple[Tensor, Tensor]:
        x, lengths = self.subsampling(features, feature_lengths)
        return self.blocks_of(x, lengths), lengths


class Torchaudio(Peer):
    """``torchaudio.models.Conformer``."""

    def build(self, size: Size) -> None:
        from torchaudio.models import Conformer

        self.blocks = Conformer(
            size.dim, size.num_heads, size.ff_dim, size.num_layers, size.kernel_size, DROPOUT
        )

    def blocks_of(self, x: Tensor, lengths: Tensor) -> Tensor:
        return self.blocks(x, lengths)[0]


class SpeechBrain(Peer):
    """``speechbrain``'s ConformerEncoder with relative positions, its recipes' choice."""

    def build(self, size: Size) -> None:
        from speechbrain.lobes.models.transformer.Conformer import ConformerEncoder
        from speechbrain.nnet.attention import RelPosEncXL

        self.positions = RelPosEncXL(size.dim)
        self.blocks = ConformerEncoder(
            size.num_layers,
            size.dim,
            size.ff_dim,
            size.num_heads,
            kernel_size=size.kernel_size,
            dropout=DROPOUT,
        )

    def blocks_of(self, x: Tensor, lengths: Tensor) -> Tensor:
        padding = ~valid_positions(lengths, x.size(1))
        return self.blocks(x, pos_embs=self.positions(x), src_key_padding_mask=padding)[0]


class Wav2Vec2Conformer(Peer):
    """Hugging Face's Wav2Vec2-Conformer blocks with rotary positions."""

    def build(self, size: Size) -> None:
        from transformers import Wav2Vec2ConformerConfig
        from transformers.models.wav2vec2_conformer.modeling_wav2vec2_conformer import (
            Wav2Vec2ConformerEncoder,
        )

        config = Wav2Vec2ConformerConfig(
            hidden_size=size.dim,
            num_hidden_layers=size.num_layers,
            num_attention_heads=size.num_heads,
            intermediate_size=size.ff_dim,
            conv_depthwise_kernel_size=size.kernel_size,
            position_embeddings_type="rotary",
            hidden_dropout=DROPOUT,
            activation_dropout=DROPOUT,
            conformer_conv_dropout=DROPOUT,
            attention_dropout=0.0,
            layerdrop=0.0,
        )
        self.blocks = Wav2Vec2ConformerEncoder(config)

    def blocks_of(self, x: Tensor, lengths: Tensor) -> Tensor:
        return self.blocks(x, attention_mask=valid_positions(lengths, x.size(1))).last_hidden_state


class Parakeet(nn.Module):
    """Hugging Face's Parakeet (FastConformer) encoder with its own depthwise subsampling, by 4 instead of 8."""

    subsampling_factor = 4

    def __init__(self, size: Size) -> None:
        super().__init__()
        from transformers import ParakeetEncoder, ParakeetEncoderConfig

        self.dim = size.dim
        config = ParakeetEncoderConfig(
            num_mel_bins=size.num_features,
            hidden_size=size.dim,
            num_hidden_layers=size.num_layers,
            num_attention_heads=size.num_heads,
            intermediate_size=size.ff_dim,
            conv_kernel_size=size.kernel_size,
            subsampling_factor=4,
            subsampling_conv_channels=size.dim,
            dropout=DROPOUT,
            activation_dropout=DROPOUT,
            attention_dropout=0.0,
            layerdrop=0.0,
        )
        self.blocks = ParakeetEncoder(config)

    def forward(self, features: Tensor, feature_lengths: Tensor) -> tuple[Tensor, Tensor]:
        mask = valid_positions(feature_lengths, features.size(1)).long()
        encoded = self.blocks(input_features=features, attention_mask=mask).last_hidden_state
        return encoded, torch.clamp((feature_lengths + 3) // 4, max=encoded.size(1))


PEERS = {
    "torchaudio": Torchaudio,
    "speechbrain": SpeechBrain,
    "wav2vec2-conformer": Wav2Vec2Conformer,
    "parakeet": Parakeet,
}
