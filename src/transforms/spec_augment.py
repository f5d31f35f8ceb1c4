"""SpecAugment: frequency and time masks on a batch of features, computed on the device from given draws.

The uniform numbers come with the batch (they were drawn per utterance, by address), so the masks of an
utterance depend neither on its batch nor on a device's generator, and nothing waits for the device.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from src.utils.audio import SAMPLE_RATE
from src.utils.errors import UserError


class SpecAugment(nn.Module):
    """Sets random bands of bins and stretches of frames to 0, the mean of normalised features (Park et al. 2019).

    With probability ``p`` an utterance gets ``freq_masks`` masks of 0..``freq_width`` bins and ``time_masks``
    masks of 0..min(``time_fraction`` * its frames, ``time_width``) frames, widths and positions uniform, all
    within its valid frames. Before that, ``freq_warp`` w > 0 moves its formants: what was at f Hz goes to a * f,
    a uniform in 1 - w .. 1 + w, as if the vocal tract were shorter or longer (VTLP, Jaitly and Hinton 2013; here
    between the bins of log-mel features of 16 kHz audio). Identity in eval mode, as dropout is.

    ``draws_per_utterance``: how many uniform numbers ``forward`` needs for each: 1 for ``p``, then (width,
    position) for each frequency mask, then for each time mask, then 1 for ``freq_warp``. Raises ``UserError``
    for an invalid severity.

    >>> augment = SpecAugment(freq_masks=1, freq_width=3, time_masks=0)
    >>> draws = torch.tensor([[0.0, 0.7, 0.5]])  # apply; width int(0.7 * 4); start int(0.5 * (5 - 2 + 1))
    >>> augment(torch.ones(1, 1, 5), torch.tensor([1]), draws).tolist()
    [[[1.0, 1.0, 0.0, 0.0, 1.0]]]
    """

    def __init__(
        self,
        p: float = 1.0,
        freq_masks: int = 2,
        freq_width: int = 27,
        time_masks: int = 5,
        time_fraction: float = 0.05,
        time_width: int | None = None,
        freq_warp: float = 0.0,
    ) -> None:
        super().__init__()
        for name, value, high in (
            ("p", p, 1.0),
            ("freq_masks", freq_masks, 1000),
            ("freq_width", freq_width, 10_000),
            ("time_masks", time_masks, 1000),
            ("time_fraction", time_fraction, 1.0),
            ("time_width", time_width or 0, 1_000_000),
            ("freq_warp", freq_warp, 0.5),
        ):
            if not isinstance(value, int | float) or not 0 <= value <= high:
                raise UserError(f"SpecAugment: {name}={value!r} is not within [0, {high}]; correct the YAML")
        self.p = p
        self.freq_masks = freq_masks
        self.freq_width = freq_width
        self.time_masks = time_masks
        self.time_fraction = time_fraction
        self.time_width = time_width
        self.freq_warp = freq_warp

    @property
    def draws_per_utterance(self) -> int:
        return 1 + 2 * (self.freq_masks + self.time_masks) + (self.freq_warp > 0)

    def forward(self, features: Tensor, feature_lengths: Tensor, draws: Tensor) -> Tensor:
        """features [B, T, F], feature_lengths [B], draws [B, draws_per_utterance] in [0, 1) -> [B, T, F]."""
        if not self.training:
            return features
        B, T, F = features.shape
        apply = draws[:, :1] < self.p
        pairs = draws[:, 1 : 1 + 2 * (self.freq_masks + self.time_masks)]
        pairs = pairs.unflatten(1, (-1, 2))  # [B, masks, (width, position)]
        if self.freq_warp:
            factor = 1 + self.freq_warp * (2 * draws[:, -1:] - 1)
            features = torch.where(apply[:, :, None], _warped(features, factor), features)

        bins = feature_lengths.new_full((B, 1), F)
        width = self.freq_width if F > 1 else 0  # a waveform has no bins: all of it would be hidden
        hidden_bins = _masked(F, bins, bins.clamp(max=width), pairs[:, : self.freq_masks])

        frames = feature_lengths[:, None]
        widest = (frames * self.time_fraction).long()
        if self.time_width is not None:
            widest = widest.clamp(max=self.time_width)
        hidden_frames = _masked(T, frames, widest, pairs[:, self.freq_masks :])

        hidden = (hidden_bins & apply)[:, None, :] | (hidden_frames & apply)[:, :, None]  # [B, T, F]
        # Beyond an utterance's end nothing changes: padding is the frontend's.
        valid = torch.arange(T, device=features.device) < frames
        return features.masked_fill(hidden & valid[:, :, None], 0.0)


def _warped(features: Tensor, factor: Tensor) -> Tensor:
    """features [B, T, F], factor [B, 1]: what was at f Hz goes to factor * f; beyond the edges the edge bins stay."""
    F = features.size(2)
    edge = _mel(torch.tensor(SAMPLE_RATE / 2, device=features.device))
    mels = edge / (F + 1) * torch.arange(1, F + 1, device=features.device)  # the bins' centres
    source = _mel(_hertz(mels) / factor) * (F + 1) / edge - 1  # [B, F], in bins
    source = source.clamp(0, F - 1)
    below = source.floor().clamp(max=max(0, F - 2)).long()
    share = (source - below).to(features.dtype)[:, None, :]
    below = below[:, None, :].expand_as(features)
    above = (below + 1).clamp(max=F - 1)
    return torch.lerp(features.gather(2, below), features.gather(2, above), share)


def _mel(hertz: Tensor) -> Tensor:
    """The HTK scale, as ``LogMel``'s."""
    return 2595 * torch.log10(1 + hertz / 700)


def _hertz(mel: Tensor) -> Tensor:
    return 700 * (10 ** (mel / 2595) - 1)


def _masked(size: int, extent: Tensor, widest: Tensor, pairs: Tensor) -> Tensor:
    """Which of ``size`` positions lie in any mask: [B, size] bool.

    extent, widest [B, 1]: positions that exist and the largest width; pairs [B, masks, 2] uniform draws.
    """
    width = _uniform_integer(pairs[..., 0], widest)
    start = _uniform_integer(pairs[..., 1], extent - width)
    position = torch.arange(size, device=pairs.device)
    inside = (position >= start[..., None]) & (position < (start + width)[..., None])  # [B, masks, size]
    return inside.any(dim=1)


def _uniform_integer(draw: Tensor, largest: Tensor) -> Tensor:
    """A uniform draw in [0, 1) as an integer in 0..largest; a draw that was rounded to 1.0 stays inside."""
    return torch.minimum((draw * (largest + 1)).long(), largest)
