from __future__ import annotations

import math
from inspect import signature
from itertools import combinations_with_replacement

import pytest
import torch
import torchaudio
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.transducer_paths import likelihood_by_paths, losses_by_recursion
from torch import nn

from src.loss.fused_transducer import fused_transducer_loss, joined_arcs
from src.loss.lattice import best_path, transducer_arcs
from src.loss.transducer import transducer_loss


def whole_example(seed: int = 0, B: int = 2, T: int = 5, U: int = 3, V: int = 6) -> tuple:
    """``example``, in which all utterances fill the tensors."""
    logits, targets, *_ = example(seed, B, T, U, V)
    return logits, targets, torch.full((B,), T), torch.full((B,), U)


def example(seed: int, B: int, T: int, U: int, V: int, scale: float = 2.0, blank: int = 0) -> tuple:
    """Logits, targets, and lengths of which the first fills the tensors."""
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(B, T, U + 1, V, generator=generator, dtype=torch.float64)
    targets = torch.randint(1, V, (B, U), generator=generator)
    targets[targets == blank] = 0
    frames = torch.randint(1, T + 1, (B,), generator=generator)
    tokens = torch.randint(0, U + 1, (B,), generator=generator)
    frames[0], tokens[0] = T, U
    return logits, targets, frames, tokens


@pytest.mark.parametrize("T,U", [(1, 0), (1, 3), (2, 1), (3, 0), (4, 3)])
def test_it_is_brute_force_over_all_paths(T, U):
    logits, targets, *lengths = example(T + U, 1, T, U, 4)
    expected = likelihood_by_paths(logits[0].log_softmax(-1), targets[0].tolist())
    assert transducer_loss(logits, targets, *lengths).item() == pytest.approx(-math.log(expected), rel=1e-10)


def test_it_is_a_number_worked_by_hand():
    # Two frames, one token, P(blank) = 1/4 and P(token) = 3/4 at every node: two paths of 1/4 * 1/4 * 3/4.
    logits = torch.tensor([1.0, 3.0]).log().expand(1, 2, 2, 2)
    one = torch.tensor([1])
    loss = transducer_loss(logits, one[None], torch.tensor([2]), one)
    assert loss.item() == pytest.approx(-math.log(2 * 3 / 64), rel=1e-6)


@pytest.mark.parametrize("T,U", [(1, 0), (1, 3), (2, 1), (3, 0), (4, 3), (3, 4)])
def test_the_best_path_is_the_best_of_all(T, U):
    logits, targets, *_ = example(T * U, 1, T, U, 4)
    log_probs = logits[0].log_softmax(-1)
    label = log_probs.gather(2, torch.nn.functional.pad(targets, (0, 1)).expand(T, -1)[..., None])[..., 0]
    scores = {}
    for frames in combinations_with_replacement(range(T), U):
        labels = sum(float(label[t, u]) for u, t in enumerate(frames))
        written = [sum(frame <= t for frame in frames) for t in range(T)]
        scores[frames] = labels + sum(float(log_probs[t, u, 0]) for t, u in enumerate(written))
    assert tuple(best_path(log_probs[..., 0], label)) == max(scores, key=scores.get)


def test_a_text_that_has_no_path_gets_some_frames_still():
    never = torch.full((3, 3), -math.inf)
    assert best_path(never, never) == [0, 0]


def test_joined_arcs_are_the_joiners_log_probabilities():
    encoded, predicted, joiner = torch.randn(2, 5, 8), torch.randn(2, 4, 8), nn.Linear(8, 6)
    targets, lengths = torch.tensor([[1, 2, 3], [4, 5, 0]]), (torch.tensor([5, 4]), torch.tensor([3, 2]))
    blank, label = joined_arcs(encoded, predicted, joiner.weight, joiner.bias, targets, *lengths, blank=5)
    whole = joiner((encoded.unsqueeze(2) + predicted.unsqueeze(1)).tanh()).log_softmax(-1).detach()
    for b, (T, U) in enumerate(zip(*lengths, strict=True)):
        torch.testing.assert_close(blank[b, :T, : U + 1], whole[b, :T, : U + 1, 5])
        for u in range(U):
            torch.testing.assert_close(label[b, :T, u], whole[b, :T, u, targets[b, u]])
    assert not blank[1, 4:].any() and not label[1, :, 3:].any() and not blank.requires_grad


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_value_and_gradient_are_those_of_the_plain_recursion(data):
    B, T, U, V = (data.draw(st.integers(low, high)) for low, high in ((1, 4), (1, 9), (0, 6), (2, 6)))
    blank = data.draw(st.integers(0, V - 1))
    scale = data.draw(st.sampled_from([0.1, 2.0, 20.0]))
    logits, targets, *lengths = example(data.draw(st.integers(0, 10**6)), B, T, U, V, scale, blank)
    weights = torch.randn(B, dtype=torch.float64)
    found = []
    for loss in (transducer_loss, losses_by_recursion):
        x = logits.clone().requires_grad_()
        losses = (
            loss(x, targets, *lengths, blank, reduction="none")
            if loss is transducer_loss
            else loss(x, targets, *lengths, blank)
        )
        (losses * weights).sum().backward()
        found.append((losses.detach(), x.grad))
    (value, gradient), (expected, expected_gradient) = found
    assert torch.allclose(value, expected, rtol=1e-9, atol=1e-9)
    assert torch.allclose(gradient, expected_gradient, rtol=1e-8, atol=1e-9)


def test_single_precision_stays_close_on_a_long_lattice():
    logits, targets, *lengths = example(3, 2, 150, 40, 20)
    exact = logits.clone().requires_grad_()
    transducer_loss(exact, targets, *lengths, reduction="sum").backward()
    single = logits.float().requires_grad_()
    value = transducer_loss(single, targets, *lengths, reduction="sum")
    value.backward()
    assert value.item() == pytest.approx(
        transducer_loss(logits, targets, *lengths, reduction="sum").item(), rel=1e-6
    )
    assert (single.grad - exact.grad).abs().max() < 5e-5


@pytest.mark.parametrize(
    "settings",
    [
        {"reduction": "none"},
        {"reduction": "sum"},
        {"reduction": "mean"},
        {"clamp": 0.05},
        {"clamp": 0.05, "reduction": "sum"},
        {"fused_log_softmax": False},
        {"fused_log_softmax": False, "clamp": 0.05},
    ],
    ids=str,
)
def test_torchaudio_says_the_same(settings):
    logits, *integers = example(5, 3, 12, 8, 12)
    if not settings.get("fused_log_softmax", True):
        logits = logits.log_softmax(-1)
    found = []
    for loss in transducer_loss, torchaudio.functional.rnnt_loss:
        x = logits.float().requires_grad_()
        losses = loss(x, *(part.int() for part in integers), blank=0, **settings)
        (losses * torch.tensor([1.0, -2.0, 0.5]) if losses.dim() else losses).sum().backward()
        found.append((losses.detach(), x.grad))
    (ours, gradient), (theirs, their_gradient) = found
    assert torch.allclose(ours, theirs, rtol=1e-5)
    assert torch.allclose(gradient, their_gradient, atol=1e-4)
    clamp = settings.get("clamp")
    assert clamp is None or (gradient.abs() > 0.999 * clamp / 3).sum() > 10  # some are clamped


def test_the_settings_stand_where_torchaudio_has_them():
    ours, theirs = (
        [*signature(loss).parameters] for loss in (transducer_loss, torchaudio.functional.rnnt_loss)
    )
    assert ours == theirs


def test_what_stands_in_the_padding_does_not_matter():
    logits, targets, frames, tokens = example(6, 3, 7, 4, 5)
    expected = transducer_loss(logits, targets, frames, tokens, reduction="none")
    for b in range(3):
        T, U = int(frames[b]), int(tokens[b])
        alone = transducer_loss(
            logits[b : b + 1, :T, : U + 1], targets[b : b + 1, :U], *(x[b : b + 1] for x in (frames, tokens))
        )
        assert alone.item() == pytest.approx(expected[b].item(), rel=1e-12)
        logits[b, T:], logits[b, :, U + 1 :], targets[b, U:] = 1e6, -1e6, -1
    x = logits.requires_grad_()
    losses = transducer_loss(x, targets, frames, tokens, reduction="none")
    losses.sum().backward()
    assert torch.equal(losses, expected)
    assert all(not x.grad[b, int(frames[b]) :].any() for b in range(3))
    assert all(not x.grad[b, :, int(tokens[b]) + 1 :].any() for b in range(3))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_in_the_padding_leaves_the_gradient_alone(value):
    logits, targets, *_ = whole_example()
    frames, tokens = torch.tensor([5, 3]), torch.tensor([3, 1])
    expected = transducer_loss(logits, targets, frames, tokens, reduction="none")
    logits[1, 3:] = value
    logits[1, :, 2:] = value
    x = logits.requires_grad_()
    losses = transducer_loss(x, targets, frames, tokens, reduction="none")
    losses.sum().backward()
    assert torch.equal(losses, expected) and x.grad.isfinite().all()
    assert not x.grad[1, 3:].any() and not x.grad[1, :, 2:].any()


def test_what_stands_in_arcs_that_lead_nowhere_does_not_matter():
    half = torch.full((2, 3, 3), 0.5, dtype=torch.float64).log()
    blank, label, frames, tokens = half.clone(), half.clone(), torch.tensor([3, 2]), torch.tensor([2, 1])
    expected = transducer_arcs(blank, label, frames, tokens)
    label[0, :, 2] = label[1, :, 1:] = label[1, 2] = blank[1, 2] = blank[1, :, 2] = math.nan
    for ours, theirs in zip(transducer_arcs(blank, label, frames, tokens), expected, strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("T", [0, 2])
def test_an_utterance_without_a_frame_has_no_path(T):
    logits, targets, _, tokens = whole_example()
    frames = torch.tensor([T, 0])
    x = logits[:, :T].requires_grad_()
    losses = transducer_loss(x, targets, frames, tokens, reduction="none")
    losses.sum().backward()
    assert losses.isinf().tolist() == [T == 0, True] and (losses > 0).all()
    assert x.grad[0].any() == (T > 0) and not x.grad[1].any()


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int16])
def test_targets_and_lengths_may_be_of_any_integer_type(dtype):
    logits, *integers = example(0, 3, 5, 3, 6)
    expected = transducer_loss(logits, *integers, reduction="none")
    found = transducer_loss(logits, *(part.to(dtype) for part in integers), reduction="none")
    assert torch.equal(found, expected)


def by_fused(targets, frames, tokens):
    return fused_transducer_loss(
        torch.randn(2, 5, 4), torch.randn(2, 4, 4), torch.randn(6, 4), torch.randn(6), targets, frames, tokens
    )


def by_logits(targets, frames, tokens):
    return transducer_loss(torch.randn(2, 5, 4, 6), targets, frames, tokens)


@pytest.mark.parametrize("loss", [by_logits, by_fused])
def test_sizes_that_do_not_fit_are_refused(loss):
    given = [torch.ones(2, 3).long(), torch.tensor([5, 4]), torch.tensor([3, 2])]
    for one in range(3):
        other = [part[:1] if place == one else part for place, part in enumerate(given)]
        with pytest.raises(ValueError, match=r"lengths do not fit 2 utterances"):
            loss(*other)
    for name, place, lengths, most in (
        ("frames", 1, [6, 5], 5),
        ("frames", 1, [-1, 5], 5),
        ("tokens", 2, [4, 3], 3),
        ("tokens", 2, [-1, 3], 3),
    ):
        other = [torch.tensor(lengths) if place == at else part for at, part in enumerate(given)]
        with pytest.raises(
            ValueError, match=rf"{name}=\[{lengths[0]}, {lengths[1]}\] must be from 0 to {most}"
        ):
            loss(*other)


def test_an_offset_of_the_logits_costs_no_precision():
    logits, targets, *lengths = whole_example(3, 2, 150, 40, 20)
    single = (2 * logits + 10_000).float().requires_grad_()
    exact = single.detach().double().requires_grad_()
    value = transducer_loss(single, targets, *lengths, reduction="sum")
    expected = transducer_loss(exact, targets, *lengths, reduction="sum")
    value.backward(), expected.backward()
    assert value.item() == pytest.approx(expected.item(), rel=1e-6)
    assert (single.grad - exact.grad).abs().max() < 5e-5


def test_the_numbers_of_targets_must_fit():
    logits, targets, *lengths = example(0, 2, 4, 3, 5)
    with pytest.raises(ValueError, match="reduction='average' must be one of: none, sum, mean"):
        transducer_loss(
            torch.zeros(1, 2, 2, 3),
            torch.tensor([[1]]),
            torch.tensor([2]),
            torch.tensor([1]),
            reduction="average",
        )
    with pytest.raises(ValueError, match="4 label positions do not fit targets of"):
        transducer_loss(logits, targets[:, :2], *lengths)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_added_up_in_single(dtype):
    logits, targets, *lengths = example(3, 2, 9, 5, 6)
    half = logits.to(dtype).requires_grad_()
    single = logits.to(dtype).float().requires_grad_()
    ours, theirs = (transducer_loss(x, targets, *lengths) for x in (half, single))
    ours.backward(), theirs.backward()
    assert ours.dtype == torch.float32 and torch.equal(ours, theirs)
    assert torch.equal(half.grad, single.grad.to(dtype))


@pytest.mark.parametrize("at_once,blank", [(1, 0), (50, 0), (2**20, 0), (50, 4)])
def test_the_fused_form_is_the_loss_of_the_joiners_logits(at_once, blank, monkeypatch):
    monkeypatch.setattr("src.loss.fused_transducer.SCORES_AT_ONCE", at_once)
    generator = torch.Generator().manual_seed(0)
    B, T, U, V, H = 3, 9, 5, 7, 6
    parameters = [
        torch.randn(*shape, generator=generator, dtype=torch.float64)
        for shape in ((B, T, H), (B, U + 1, H), (V, H), (V,))
    ]
    _, targets, *lengths = example(1, B, T, U, V, blank=blank)
    weights = torch.randn(B, generator=generator, dtype=torch.float64)
    found = []
    for is_fused in (True, False):
        encoded, predicted, weight, bias = own = [x.clone().requires_grad_() for x in parameters]
        if is_fused:
            losses = fused_transducer_loss(*own, targets, *lengths, blank, reduction="none")
        else:
            logits = nn.functional.linear(
                (encoded.unsqueeze(2) + predicted.unsqueeze(1)).tanh(), weight, bias
            )
            losses = transducer_loss(logits, targets, *lengths, blank, reduction="none")
        (losses * weights).sum().backward()
        found.append([losses.detach(), *(x.grad for x in own)])
    for ours, theirs in zip(*found, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-6, atol=1e-7)


def test_the_fused_form_takes_part_in_mixed_precision():
    generator = torch.Generator().manual_seed(2)
    encoded, predicted = (torch.randn(2, n, 16, generator=generator).requires_grad_() for n in (12, 5))
    joiner = nn.Linear(16, 9)
    _, targets, *lengths = example(2, 2, 12, 4, 9)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = fused_transducer_loss(encoded, predicted, joiner.weight, joiner.bias, targets, *lengths)
    mixed.backward()
    gradient = joiner.weight.grad.clone()
    joiner.zero_grad()
    full = fused_transducer_loss(encoded, predicted, joiner.weight, joiner.bias, targets, *lengths)
    full.backward()
    assert mixed.dtype == gradient.dtype == torch.float32
    assert mixed.item() == pytest.approx(full.item(), rel=1e-2) and mixed.item() != full.item()
    assert torch.allclose(gradient, joiner.weight.grad, rtol=0.05, atol=0.05)
    # To the bit what it is of numbers that have its precision.
    parts = [x.bfloat16() for x in (encoded, predicted, joiner.weight, joiner.bias)]
    assert torch.equal(mixed, fused_transducer_loss(*parts, targets, *lengths))


def test_nodes_that_hardly_any_path_passes_are_left_out_of_the_gradient(monkeypatch):
    """Where the paths are sure: far fewer than all, and what that changes is too little to see."""
    generator = torch.Generator().manual_seed(4)
    B, T, U, V, H = 1, 40, 10, 8, 16
    encoded, predicted = (torch.randn(B, n, H, generator=generator).requires_grad_() for n in (T, U + 1))
    weight, bias = 6 * torch.randn(V, H, generator=generator), torch.zeros(V)
    targets, lengths = (
        torch.randint(1, V, (B, U), generator=generator),
        (torch.tensor([T]), torch.tensor([U])),
    )
    gradients, joined = [], []
    for least in (-1.0, 1e-9):
        monkeypatch.setattr("src.loss.fused_transducer.LEAST_OCCUPATION", least)
        loss = fused_transducer_loss(encoded, predicted, weight, bias, targets, *lengths)
        monkeypatch.setattr(
            torch, "addmm", lambda *args, add=torch.addmm: joined.append(len(args[1])) or add(*args)
        )
        gradients.append(torch.autograd.grad(loss, encoded)[0])
        monkeypatch.undo()
    assert torch.allclose(*gradients, atol=1e-6)
    assert joined[0] == T * (U + 1) and joined[1] < 0.8 * joined[0]
