"""LogMel: the same numbers whatever the batch, and the same numbers as torchaudio."""

from __future__ import annotations

import math

import pytest
import torch
import torchaudio

from src.transforms import LogMel
from src.transforms.log_mel import FLOOR
from src.utils.errors import UserError


def clips(*sizes: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [0.1 * torch.randn(size, generator=generator).cumsum(0).sin() for size in sizes]


@pytest.mark.parametrize("normalize", [True, False])
def test_result_does_not_depend_on_batch_padding_or_garbage(normalize):
    frontend = LogMel(normalize=normalize)
    audios = clips(160, 399, 5000, 16000, 40123, 159, 0)
    lengths = torch.tensor([audio.numel() for audio in audios])
    batch = torch.randn(len(audios), 50000)  # what lies beyond an utterance's end must not be read
    for row, audio in zip(batch, audios, strict=True):
        row[: audio.numel()] = audio
    together, feature_lengths = frontend(batch, lengths)
    assert together.shape == (7, 312, 80) and together.isfinite().all()
    assert feature_lengths.tolist() == [1, 2, 31, 100, 250, 0, 0] == frontend.output_lengths(lengths).tolist()
    for row, audio, frames in zip(together, audios, feature_lengths.tolist(), strict=True):
        alone, _ = frontend(audio[None], torch.tensor([audio.numel()]))
        assert alone.shape == (1, frames, 80)
        torch.testing.assert_close(row[:frames], alone[0], rtol=0, atol=1e-5)
        assert not row[frames:].any()


def test_nan_beyond_the_end_is_not_read():
    audio = torch.full((1, 4000), float("nan"))
    audio[0, :2000] = clips(2000)[0]
    features, _ = LogMel()(audio, torch.tensor([2000]))
    assert features.isfinite().all()


def test_equals_torchaudio_on_interior_frames():
    audio = clips(16000)[0]
    frontend = LogMel(normalize=False)
    features, _ = frontend(audio[None], torch.tensor([16000]))
    peer = torchaudio.transforms.MelSpectrogram(16000, n_fft=512, win_length=400, hop_length=160, n_mels=80,
                                                center=False)  # fmt: skip
    # torch.stft puts a window of 400 into the middle of 512 samples: 56 zeros in front line the frames up.
    expected = torch.log(peer(torch.nn.functional.pad(audio, (56, 0))) + FLOOR).T
    assert len(expected) > 90
    torch.testing.assert_close(features[0, : len(expected)], expected, rtol=1e-4, atol=1e-4)


def test_frame_t_reads_from_t_times_hop_on():
    click = torch.zeros(1, 3200)
    click[0, 1000] = 1.0  # in the windows that start at 640, 800 and 960, that is in frames 4, 5 and 6
    features, _ = LogMel(normalize=False)(click, torch.tensor([3200]))
    loud = (features[0].amax(1) > math.log(FLOOR) + 1).nonzero().flatten()
    assert loud.tolist() == [4, 5, 6]
    assert features[0, 0].sub(math.log(FLOOR)).abs().max() < 1e-4


def test_power_of_a_sine_by_hand():
    # A sine of amplitude A in the middle of FFT bin k has |X_k|^2 = (A / 2 * sum(window))^2.
    time = torch.arange(16000) / 16000
    audio = 0.5 * torch.sin(2 * math.pi * 1000 * time)  # 1000 Hz = bin 32 of 512
    frontend = LogMel(normalize=False)
    features, _ = frontend(audio[None], torch.tensor([16000]))
    window_spectrum = torch.fft.rfft(torch.hann_window(400), 512).abs()
    power = torch.zeros(257)
    for offset in range(-3, 4):
        power[32 + offset] = (0.25 * window_spectrum[abs(offset)]) ** 2
    expected = torch.log(power @ frontend.filters + FLOOR)
    best = expected.argmax()
    assert features[0, 10].argmax() == best
    assert features[0, 10, best].item() == pytest.approx(expected[best].item(), abs=1e-3)


def test_normalised_bins_have_mean_0_and_variance_1_over_valid_frames():
    audio = torch.stack([clips(24000)[0], clips(24000)[0].flip(0)])
    features, lengths = LogMel()(audio, torch.tensor([24000, 12000]))
    for row, frames in zip(features, lengths.tolist(), strict=True):
        torch.testing.assert_close(row[:frames].mean(0), torch.zeros(80), rtol=0, atol=1e-5)
        torch.testing.assert_close(row[:frames].var(0, correction=0), torch.ones(80), rtol=1e-4, atol=0)


def test_gain_cancels_and_silence_is_zero():
    audio = clips(16000)[0][None]
    lengths = torch.tensor([16000])
    loud, quiet = LogMel()(audio, lengths)[0], LogMel()(audio / 4, lengths)[0]
    assert (loud - quiet).abs().mean() < 0.02  # all but the floor
    silent, _ = LogMel()(torch.zeros(1, 16000), lengths)
    assert silent.abs().max() < 1e-3


def test_float32_under_autocast_and_without_state():
    frontend = LogMel()
    audio, lengths = clips(8000)[0][None], torch.tensor([8000])
    plain, _ = frontend(audio, lengths)
    with torch.autocast("cpu", torch.bfloat16):
        features, _ = frontend(audio, lengths)
    assert features.dtype == torch.float32 and torch.equal(features, plain)
    assert not frontend.state_dict()
    assert frontend(audio.double(), lengths)[0].dtype == torch.float32


@pytest.mark.parametrize(
    ("window_ms", "hop_ms", "fft_size", "frames"), [(25, 10, 512, 100), (64, 20, 1024, 50)]
)
def test_windows_and_hops(window_ms, hop_ms, fft_size, frames):
    frontend = LogMel(num_mels=40, window_ms=window_ms, hop_ms=hop_ms)
    assert frontend.fft_size == fft_size
    features, _ = frontend(clips(16000)[0][None], torch.tensor([16000]))
    assert features.shape == (1, frames, 40)


def test_hop_longer_than_window_is_spoken():
    with pytest.raises(UserError, match="hop_ms"):
        LogMel(window_ms=10, hop_ms=20)
