"""SpecAugment against a plain loop, and its properties."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from src.transforms import LogMel, SpecAugment
from src.utils.errors import UserError


def reference(augment: SpecAugment, features, lengths, draws):
    """The same masks, written as the paper's text says, one at a time."""
    result = features.clone()
    for b, length in enumerate(lengths.tolist()):
        numbers = iter(draws[b].tolist())
        if next(numbers) >= augment.p:
            continue
        F = features.shape[2]
        for _ in range(augment.freq_masks):
            width = int(next(numbers) * ((min(augment.freq_width, F) if F > 1 else 0) + 1))
            start = int(next(numbers) * (F - width + 1))
            result[b, :length, start : start + width] = 0
        for _ in range(augment.time_masks):
            widest = int(augment.time_fraction * length)
            if augment.time_width is not None:
                widest = min(widest, augment.time_width)
            width = int(next(numbers) * (widest + 1))
            start = int(next(numbers) * (length - width + 1))
            result[b, start : start + width] = 0
    return result


@settings(max_examples=60, deadline=None)
@given(
    p=st.sampled_from([0.0, 0.5, 1.0]),
    freq_masks=st.integers(0, 3),
    freq_width=st.integers(0, 20),
    time_masks=st.integers(0, 4),
    time_fraction=st.sampled_from([0.0, 0.0625, 0.25, 1.0]),  # exact in binary: one product, one floor
    time_width=st.sampled_from([None, 0, 3]),
    lengths=st.lists(st.integers(0, 50), min_size=1, max_size=4),
    seed=st.integers(0, 10_000),
)
def test_equals_the_plain_loop(
    p, freq_masks, freq_width, time_masks, time_fraction, time_width, lengths, seed
):
    augment = SpecAugment(p, freq_masks, freq_width, time_masks, time_fraction, time_width)
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(len(lengths), max(lengths), 12, generator=generator)
    # Multiples of 1/1024 keep every product exact, so float32 and Python floats agree on each floor.
    draws = torch.randint(0, 1024, (len(lengths), augment.draws_per_utterance), generator=generator) / 1024
    lengths = torch.tensor(lengths)
    before = features.clone()
    result = augment(features, lengths, draws)
    torch.testing.assert_close(result, reference(augment, features, lengths, draws), rtol=0, atol=0)
    assert torch.equal(features, before)


def test_widths_are_uniform_and_positions_reach_both_ends():
    augment = SpecAugment(freq_masks=1, freq_width=4, time_masks=1, time_fraction=0.5, time_width=6)
    B, T, F = 6000, 30, 10
    draws = torch.rand(B, augment.draws_per_utterance, generator=torch.Generator().manual_seed(0))
    hidden = augment(torch.ones(B, T, F), torch.full((B,), 20), draws) == 0
    assert not hidden[:, 20:].any()  # only within the valid frames
    freq_width = hidden[:, :20].all(1).sum(1)
    time_width = hidden[:, :20].all(2).sum(1)
    assert torch.bincount(freq_width, minlength=5).float().div(B).sub(1 / 5).abs().max() < 0.03
    assert torch.bincount(time_width, minlength=7).float().div(B).sub(1 / 7).abs().max() < 0.03
    assert hidden[:, :20].all(1).any(0).all() and hidden[:, :20].all(2).any(0).all()


def test_probability_selects_whole_utterances():
    augment = SpecAugment(p=0.25, freq_masks=1, freq_width=4, time_masks=0)
    draws = torch.tensor([[0.2, 0.99, 0.0], [0.25, 0.99, 0.0]])
    result = augment(torch.ones(2, 3, 8), torch.tensor([3, 3]), draws)
    assert result[0].sum() == 3 * 4 and result[1].sum() == 3 * 8


def test_a_draw_that_rounds_to_one_stays_inside():
    augment = SpecAugment(freq_masks=1, freq_width=3, time_masks=1, time_fraction=0.5)
    draws = torch.tensor([[0.0, 1.0, 1.0, 1.0, 1.0]])
    hidden = augment(torch.ones(1, 8, 6), torch.tensor([8]), draws)[0] == 0
    assert hidden[0].tolist() == [False] * 3 + [True] * 3
    assert hidden[:, 0].tolist() == [False] * 4 + [True] * 4


def test_result_does_not_depend_on_batch_or_padding():
    augment = SpecAugment()
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(3, 200, 80, generator=generator)
    draws = torch.rand(3, augment.draws_per_utterance, generator=generator)
    lengths = torch.tensor([200, 77, 120])
    together = augment(features, lengths, draws)
    for b, n in enumerate(lengths.tolist()):
        alone = augment(features[b : b + 1, :n], lengths[b : b + 1], draws[b : b + 1])
        assert torch.equal(together[b : b + 1, :n], alone)
        assert torch.equal(together[b, n:], features[b, n:])


def test_identity_in_eval_mode_and_half_precision_in_training():
    augment = SpecAugment()
    features = torch.randn(2, 40, 80)
    draws = torch.rand(2, augment.draws_per_utterance)
    lengths = torch.tensor([40, 30])
    half = augment(features.bfloat16(), lengths, draws)
    assert half.dtype == torch.bfloat16
    assert torch.equal(half == 0, augment(features, lengths, draws) == 0)
    assert augment.eval()(features, lengths, draws) is features
    assert isinstance(augment, nn.Module) and not augment.state_dict()


@pytest.mark.parametrize("hertz", [300, 1000, 3000])
@pytest.mark.parametrize("draw", [0.0, 0.25, 0.5, 0.75, 1.0])
def test_freq_warp_moves_a_tone_by_its_factor(hertz, draw):
    """A warped tone of f Hz has its peak where the tone of factor * f has it."""
    augment = SpecAugment(freq_masks=0, time_masks=0, freq_warp=0.2)
    frontend = LogMel(normalize=False)

    def tone(frequency):
        phase = 2 * torch.pi * frequency * torch.arange(16000) / 16000
        return frontend(0.1 * torch.sin(phase)[None], torch.tensor([16000]))[0]

    warped = augment(tone(hertz), torch.tensor([100]), torch.tensor([[0.0, draw]]))
    factor = 1 + 0.2 * (2 * draw - 1)
    assert abs(warped[0, 50].argmax() - tone(hertz * factor)[0, 50].argmax()) <= 1
    if draw == 0.5:
        torch.testing.assert_close(warped, tone(hertz), rtol=0, atol=1e-2)


def test_freq_warp_follows_p_and_keeps_padding_and_the_masks():
    plain, warping = SpecAugment(p=0.5), SpecAugment(p=0.5, freq_warp=0.3)
    assert warping.draws_per_utterance == plain.draws_per_utterance + 1
    features = torch.rand(2, 30, 80, generator=torch.Generator().manual_seed(1)) + 1
    features[:, 20:] = 0
    draws = torch.rand(2, warping.draws_per_utterance, generator=torch.Generator().manual_seed(2))
    draws[:, 0] = torch.tensor([0.1, 0.9])
    masked = plain(features, torch.tensor([20, 20]), draws[:, :-1])
    warped = warping(features, torch.tensor([20, 20]), draws)
    assert torch.equal(warped[1], features[1]) and torch.equal(warped == 0, masked == 0)
    assert not torch.equal(warped[0], masked[0])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("p", 2),
        ("p", "often"),
        ("freq_masks", -1),
        ("freq_width", -3),
        ("time_fraction", 1.5),
        ("time_width", -1),
        ("freq_warp", 0.7),
    ],
)
def test_invalid_severity_is_spoken(name, value):
    with pytest.raises(UserError, match=name):
        SpecAugment(**{name: value})


def test_a_waveform_has_no_bins_to_hide():
    augment = SpecAugment(freq_masks=2, time_masks=0)
    waveform = torch.ones(4, 50, 1)
    draws = torch.rand(4, augment.draws_per_utterance)
    assert torch.equal(augment(waveform, torch.tensor([50, 40, 30, 0]), draws), waveform)
