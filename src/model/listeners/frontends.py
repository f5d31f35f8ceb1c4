"""What pretrained encoders listen to: Whisper's log-mel spectrograms, or waveforms."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import torchaudio
from torch import Tensor, nn

from src.model.listeners.kinds import kind_of, listener_config
from src.model.pretrained import Source
from src.utils.audio import SAMPLE_RATE
from src.utils.errors import UserError
from src.utils.extras import speech_llm_package
from src.utils.masks import valid_positions

WINDOW, HOP = 400, 160  # samples


class WhisperLogMel(nn.Module):
    """Whisper's features (Radford et al., arXiv 2212.04356, sec. 2.2), in windows of a fixed length.

    A clip is cut into windows of ``frames`` of 10 ms, the last one filled up with silence. In each: Hann window of 25
    ms, centred frames, Slaney's mel scale, log10, at most 8 below the window's loudest value, (x + 4) / 4. Beyond
    ``feature_lengths`` is what silence looks like, which the encoder was trained to see. No parameters.

    >>> features, lengths = WhisperLogMel(80, frames=100)(torch.randn(2, 24000), torch.tensor([24000, 8000]))
    >>> features.shape, lengths.tolist()
    (torch.Size([2, 200, 80]), [150, 50])
    """

    hop = HOP

    def __init__(self, num_mels: int, frames: int) -> None:
        super().__init__()
        self.frames = frames
        with torch.device("cpu"):  # it looks at its own values, which the meta device has not
            filters = torchaudio.functional.melscale_fbanks(
                WINDOW // 2 + 1,
                0.0,
                SAMPLE_RATE / 2,
                num_mels,
                SAMPLE_RATE,
                norm="slaney",
                mel_scale="slaney",
            )
        self.register_buffer("filters", filters, persistent=False)  # [bins, num_mels]
        self.register_buffer("window", torch.hann_window(WINDOW), persistent=False)

    def forward(self, audio: Tensor, audio_lengths: Tensor) -> tuple[Tensor, Tensor]:
        """audio [B, N], audio_lengths [B] -> features [B, W frames, num_mels], feature_lengths [B]."""
        with torch.autocast(audio.device.type, enabled=False):
            B, N = audio.shape
            samples = self.frames * HOP
            audio = audio.float() * valid_positions(audio_lengths, N)
            audio = F.pad(audio, (0, max(N, 1) // -samples * -samples - N)).view(-1, samples)
            spectrum = torch.stft(audio, WINDOW, HOP, window=self.window, return_complex=True)[..., :-1]
            mels = spectrum.abs().square().transpose(1, 2) @ self.filters  # [B W, frames, num_mels]
            features = mels.clamp_min(1e-10).log10()
            features = (features.maximum(features.amax((1, 2), keepdim=True) - 8) + 4) / 4
            return features.view(B, -1, features.size(2)), (audio_lengths + HOP - 1) // HOP


class Waveform(nn.Module):
    """The samples themselves, as features of one value; ``normalize``: with mean 0 and variance 1 in each clip.

    >>> features, lengths = Waveform(normalize=True)(torch.rand(2, 400), torch.tensor([400, 300]))
    >>> features.shape, features[1, :300].std().round(decimals=2).item(), features[1, 300:].any().item()
    (torch.Size([2, 400, 1]), 1.0, False)
    """

    hop = 1

    def __init__(self, normalize: bool) -> None:
        super().__init__()
        self.normalize = normalize

    def forward(self, audio: Tensor, audio_lengths: Tensor) -> tuple[Tensor, Tensor]:
        """audio [B, N], audio_lengths [B] -> features [B, N, 1], feature_lengths [B]."""
        real = valid_positions(audio_lengths, audio.size(1))
        audio = audio.float() * real
        if self.normalize:
            count = audio_lengths.clamp_min(1).unsqueeze(1)
            centred = (audio - audio.sum(1, keepdim=True) / count) * real
            audio = centred / (centred.square().sum(1, keepdim=True) / count + 1e-7).sqrt()
        return audio.unsqueeze(2), audio_lengths


class TransformersFrontend(nn.Module):
    """Audio -> the features that an encoder of ``transformers`` takes, by its config.

    Args:
        source, revision, config: the encoder's, see ``TransformersEncoder``.
    """

    def __init__(
        self,
        source: str | None = None,
        revision: str | None = None,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        origin = Source(source, revision, config)
        self.revision = origin.revision
        kind = kind_of(listener_config(origin.config))
        if kind.num_mels is None:
            self.features = Waveform(_is_normalized(origin))
        else:
            self.features = WhisperLogMel(kind.num_mels, kind.window_frames)
        self.hop = self.features.hop

    def forward(self, audio: Tensor, audio_lengths: Tensor) -> tuple[Tensor, Tensor]:
        """audio [B, N], audio_lengths [B] -> features [B, T, F], feature_lengths [B]."""
        return self.features(audio, audio_lengths)


def _is_normalized(origin: Source) -> bool:
    """What the encoder's ``preprocessor_config.json`` says of its waveforms; true where there is none."""
    if origin.name is None:
        return True
    mixin = speech_llm_package("transformers").FeatureExtractionMixin
    revision = None if origin.is_folder else origin.revision
    try:
        settings, _ = mixin.get_feature_extractor_dict(origin.name, revision=revision)
    except OSError:
        if _has_none(origin, "preprocessor_config.json", revision):
            return True
        raise UserError(
            f"{origin.name}: whether its waveforms are normalised, as preprocessor_config.json says, cannot be read; "
            "restore the file, or load it with a connection once"
        ) from None
    return bool(settings.get("do_normalize", True))


def _has_none(origin: Source, file: str, revision: str | None) -> bool:
    """Whether there surely is no such file: the cache knows, too, what a hub was asked for and has not."""
    if origin.is_folder:
        return not Path(origin.name, file).exists()
    hub = speech_llm_package("huggingface_hub")
    return hub.try_to_load_from_cache(origin.name, file, revision=revision) is hub._CACHED_NO_EXIST
