"""Log-mel features whose every value depends on its own utterance alone.

Frames are not centred and nothing is mirrored: frame t reads the samples from t * hop on, zeros beyond the
end, so padding and neighbours in the batch cannot be seen. Always float32: mel energies overflow in fp16.
"""

from __future__ import annotations

import torch
import torchaudio
from torch import Tensor, nn

from src.utils.audio import SAMPLE_RATE
from src.utils.errors import UserError

# About what rounding to 16 bits puts into a mel bin (1e-8 to 1e-7) is lifted to one level, and so are digital
# silence and drop-outs. Ordinary speech lies 1e4 to 1e8 times higher; a quiet recording keeps its detail.
FLOOR = 1e-7
# A bin that moves by less than 0.1 nat (0.4 dB) over an utterance holds no speech: it is not blown up.
MIN_STD = 0.1


class LogMel(nn.Module):
    """Log-mel filterbank energies: audio [B, N] in [-1, 1] -> features [B, N // hop, num_mels].

    Hann window, power spectrum (FFT of the next power of two), HTK mel scale from 0 Hz to half the sample
    rate, log(energy + 1e-7). ``normalize``: each bin gets mean 0 and variance 1 over the utterance's frames,
    so that a recording's gain and channel cancel. Frames from ``feature_lengths`` on are 0, samples from
    ``audio_lengths`` on are not read. No parameters, and nothing in the ``state_dict``.

    >>> features, lengths = LogMel()(torch.randn(2, 16000) * 0.1, torch.tensor([16000, 8000]))
    >>> features.shape, lengths.tolist(), features[1, 50:].abs().max().item()
    (torch.Size([2, 100, 80]), [100, 50], 0.0)
    """

    def __init__(
        self,
        num_mels: int = 80,
        window_ms: float = 25,
        hop_ms: float = 10,
        normalize: bool = True,
    ) -> None:
        super().__init__()
        self.num_mels = num_mels
        self.window_size = round(SAMPLE_RATE * window_ms / 1000)
        self.hop = round(SAMPLE_RATE * hop_ms / 1000)
        self.normalize = normalize
        if not 0 < self.hop <= self.window_size:
            raise UserError(f"LogMel: hop_ms={hop_ms} must be above 0 and at most window_ms={window_ms}")
        self.fft_size = 1 << (self.window_size - 1).bit_length()
        bins = self.fft_size // 2 + 1
        with torch.device("cpu"):  # it looks at its own values, which the meta device has not
            filters = torchaudio.functional.melscale_fbanks(bins, 0.0, SAMPLE_RATE / 2, num_mels, SAMPLE_RATE)
        self.register_buffer("window", torch.hann_window(self.window_size), persistent=False)
        self.register_buffer("filters", filters, persistent=False)  # [bins, num_mels]

    def output_lengths(self, audio_lengths: Tensor) -> Tensor:
        """Samples -> frames, [B] -> [B]."""
        return audio_lengths // self.hop

    def forward(self, audio: Tensor, audio_lengths: Tensor) -> tuple[Tensor, Tensor]:
        """audio [B, N], audio_lengths [B] -> features [B, N // hop, num_mels] and feature_lengths [B]."""
        with torch.autocast(audio.device.type, enabled=False):
            N = audio.shape[1]
            T = N // self.hop
            audio = audio.float().masked_fill(_beyond(audio_lengths, N), 0.0)
            audio = nn.functional.pad(audio, (0, T * self.hop + self.window_size - N))
            frames = audio.unfold(1, self.window_size, self.hop)  # [B, T + 1, window]: never an empty FFT
            spectrum = torch.fft.rfft(frames * self.window, n=self.fft_size)
            power = spectrum.real.square() + spectrum.imag.square()
            features = torch.log(power @ self.filters + FLOOR)[:, :T]  # [B, T, num_mels]
            feature_lengths = self.output_lengths(audio_lengths)
            padding = _beyond(feature_lengths, T)[:, :, None]
            if self.normalize:
                features = _normalize(features, feature_lengths, padding)
            return features.masked_fill(padding, 0.0), feature_lengths


def _beyond(lengths: Tensor, size: int) -> Tensor:
    """[B] -> [B, size] bool: True from each length on."""
    return torch.arange(size, device=lengths.device) >= lengths[:, None]


def _normalize(features: Tensor, lengths: Tensor, padding: Tensor) -> Tensor:
    """Mean 0 and variance 1 per utterance and bin over the frames that are not padding."""
    count = lengths.clamp(min=1)[:, None, None]
    mean = features.masked_fill(padding, 0.0).sum(dim=1, keepdim=True) / count
    centred = (features - mean).masked_fill(padding, 0.0)
    variance = centred.square().sum(dim=1, keepdim=True) / count
    return centred / variance.sqrt().clamp(min=MIN_STD)
