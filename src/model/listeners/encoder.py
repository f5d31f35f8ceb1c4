"""An encoder of ``transformers`` behind our encoders' interface."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from src.model.listeners.kinds import kind_of, listener_config
from src.model.pretrained import Pretrained, Source
from src.utils.extras import speech_llm_package
from src.utils.masks import valid_positions

# Of training from scratch; some of it crashes on short clips.
WITHOUT = {
    "apply_spec_augment": False,
    "mask_time_prob": 0.0,
    "mask_feature_prob": 0.0,
    "layerdrop": 0.0,
    "encoder_layerdrop": 0.0,
}


class TransformersEncoder(Pretrained):
    """Whisper, GLM-ASR, HuBERT or wav2vec 2.0, of which ``dim`` and ``subsampling_factor`` are read from its config.

    A clip's result does not depend on its batch. Whisper and GLM-ASR listen in windows of one length, as they were
    trained to (a longer clip's windows are joined); HuBERT and wav2vec 2.0 with layer norm take a mask; with group
    norm, which sees padding, clips of one length are computed together.

    Args:
        source: a hub id (``openai/whisper-large-v3``), or a folder; a larger network's encoder is taken out of it.
        revision: its commit, or the folder's fingerprint; None: what is there now.
        config: instead of a source, ``model_type`` and sizes of a random one.
        dtype: of its weights: float32, bfloat16 or float16.
        lora: see ``Pretrained``.

    Raises ``UserError`` for what cannot be loaded or is none of these.
    """

    def __init__(
        self,
        source: str | None = None,
        revision: str | None = None,
        config: Mapping[str, Any] | None = None,
        dtype: str = "float32",
        lora: Mapping[str, Any] | None = None,
    ) -> None:
        origin = Source(source, revision, config)
        sizes = listener_config(origin.config)
        for name in WITHOUT.keys() & vars(sizes).keys():
            setattr(sizes, name, WITHOUT[name])
        kind = kind_of(sizes)
        make = getattr(speech_llm_package(f"transformers.models.{kind.module}"), kind.class_name)
        super().__init__(origin, origin.network(make, sizes, dtype, kind.rename), lora)
        self.way, self.window_frames = kind.way, kind.window_frames
        self.dim = sizes.hidden_size
        self.steps: list[tuple[int, int]] = []  # kernels and strides that waveforms go through
        if kind.num_mels is None:
            self.steps = list(zip(sizes.conv_kernel, sizes.conv_stride, strict=True))
        self.subsampling_factor = math.prod(stride for _, stride in self.steps) if self.steps else 2

    def output_lengths(self, lengths: Tensor) -> Tensor:
        """Features -> encoded frames, [B] -> [B]."""
        if not self.steps:
            return (lengths + 1) // 2
        for kernel, stride in self.steps:
            lengths = (lengths - kernel).div(stride, rounding_mode="floor") + 1
        return lengths.clamp_min(0)

    def forward(self, features: Tensor, feature_lengths: Tensor) -> tuple[Tensor, Tensor]:
        """features [B, T, F], feature_lengths [B] -> encoded [B, T', D], encoded_lengths [B]."""
        lengths = self.output_lengths(feature_lengths)
        encoded = getattr(self, f"_{self.way}")(features.to(self.network.dtype), feature_lengths)
        encoded = encoded[:, : max(1, int(lengths.max()))]
        return encoded * valid_positions(lengths, encoded.size(1)).unsqueeze(-1), lengths

    def _windows(self, features: Tensor, lengths: Tensor) -> Tensor:
        """Each window that has a real frame by itself, joined again."""
        B, T, mels = features.shape
        size = self.window_frames
        windows = F.pad(features, (0, 0, 0, -T % size)).view(B, -1, size, mels)
        starts = torch.arange(windows.size(1), device=lengths.device) * size
        heard = starts < lengths[:, None]  # [B, W]
        if not heard.any():
            return windows.new_zeros(B, 1, self.dim)
        parts = self.network(windows[heard].transpose(1, 2)).last_hidden_state
        encoded = parts.new_zeros(B, windows.size(1), size // 2, self.dim)
        encoded[heard] = parts
        return encoded.flatten(1, 2)

    def _masked(self, features: Tensor, lengths: Tensor) -> Tensor:
        audio, lengths = self._audible(features, lengths)
        return self.network(
            audio, attention_mask=valid_positions(lengths, audio.size(1)).long()
        ).last_hidden_state

    def _by_length(self, features: Tensor, lengths: Tensor) -> Tensor:
        audio, lengths = self._audible(features, lengths)
        order, parts = [], []
        for length in lengths.unique().tolist():
            rows = (lengths == length).nonzero().squeeze(1)
            order.append(rows)
            parts += self.network(audio[rows, :length]).last_hidden_state.unbind()
        return pad_sequence(parts, batch_first=True)[torch.cat(order).argsort()]

    def _audible(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Waveforms [B, N] and lengths that give every clip at least one frame."""
        least = 1
        for kernel, stride in reversed(self.steps):
            least = (least - 1) * stride + kernel
        audio = features.squeeze(2)
        return F.pad(audio, (0, max(0, least - audio.size(1)))), lengths.clamp_min(least)
