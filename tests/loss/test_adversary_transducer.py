"""What an adversary found wrong with the transducer's loss; each test fails until it is mended."""

from __future__ import annotations

import math

import pytest
import torch

from src.loss import TransducerObjective
from src.loss.transducer import fused_transducer_loss, transducer_loss


def example(B: int = 2, T: int = 5, U: int = 3, V: int = 6, seed: int = 0) -> tuple:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(B, T, U + 1, V, generator=generator, dtype=torch.float64)
    return (
        logits,
        torch.randint(1, V, (B, U), generator=generator),
        torch.full((B,), T),
        torch.full((B,), U),
    )


# wrong: what stands in the padding matters: one NaN or infinity there makes the gradient NaN (torchaudio's stays 0)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_no_number_in_the_padding_leaves_the_gradient_alone(value):
    logits, targets, *_ = example()
    frames, tokens = torch.tensor([5, 3]), torch.tensor([3, 1])
    logits[1, 3:] = value
    logits[1, :, 2:] = value
    x = logits.requires_grad_()
    losses = transducer_loss(x, targets, frames, tokens, reduction="none")
    losses.sum().backward()
    assert losses.isfinite().all() and x.grad.isfinite().all()
    assert not x.grad[1, 3:].any() and not x.grad[1, :, 2:].any()


# wrong: "lengths and targets may be of any integer type", but int8 and int16 lengths raise IndexError, and uint8 ones
# are taken for a mask (or 0 - 1 = 255 for a place)
@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int16])
def test_lengths_may_be_of_any_integer_type(dtype):
    logits, targets, frames, tokens = example()
    expected = transducer_loss(logits, targets, frames, tokens, reduction="none")
    found = transducer_loss(logits, targets, frames.to(dtype), tokens.to(dtype), reduction="none")
    assert torch.equal(found, expected)


# wrong: a tensor of no frames at all raises "narrow(): length must be non-negative", although lattice.py has code for
# T = 0 and says that an utterance without frames has no path
def test_tensors_without_a_frame_have_no_path():
    logits, targets, _, tokens = example()
    none = torch.zeros(2, dtype=torch.long)
    losses = transducer_loss(logits[:, :0], targets, none, tokens, reduction="none")
    assert losses.tolist() == [math.inf, math.inf]


# wrong: as above, of the objective, which promises to mark such clips
def test_the_objective_marks_clips_where_none_has_a_frame():
    weight, none = torch.randn(6, 4, requires_grad=True), torch.zeros(2, dtype=torch.long)
    found = TransducerObjective(0)(
        torch.zeros(2, 0, 4),
        torch.randn(2, 4, 4),
        weight,
        torch.zeros(6),
        none,
        torch.ones(2, 3).long(),
        none + 3,
    )
    assert found["too_short"].all() and found["loss_sum"] == 0 and found["normalizer"] == 0


# wrong: batch sizes that differ are broadcast in silence (torchaudio refuses them): a loss of other texts
@pytest.mark.parametrize("one", ["targets", "frames", "tokens"])
def test_another_batch_size_is_refused(one):
    logits, targets, frames, tokens = example()
    given = {"targets": targets, "frames": frames, "tokens": tokens}
    given[one] = given[one][:1]
    with pytest.raises(ValueError):
        transducer_loss(logits, *given.values(), reduction="none")


# wrong: lengths beyond the tensors are an IndexError that names neither (on a GPU: a device assert), and negative ones
# an infinite loss in silence; every other misfit is a ValueError
@pytest.mark.parametrize(
    "frames,tokens", [([6, 5], [3, 3]), ([5, 5], [4, 3]), ([-1, 5], [3, 3]), ([5, 5], [-1, 3])]
)
def test_lengths_that_do_not_fit_are_refused(frames, tokens):
    logits, targets, *_ = example()
    with pytest.raises(ValueError):
        transducer_loss(logits, targets, torch.tensor(frames), torch.tensor(tokens), reduction="none")


# wrong: "they need not be normalised", but in single precision logits that share a large offset lose the gradient's
# promised 5e-5 (8e-4 here): logsumexp is rounded, not what is left after the offset; log_softmax first has 2e-7
def test_an_offset_of_the_logits_costs_no_precision():
    logits, targets, *lengths = example(2, 150, 40, 20, 3)
    single = (2 * logits + 10_000).float().requires_grad_()
    exact = single.detach().double().requires_grad_()
    value = transducer_loss(single, targets, *lengths, reduction="sum")
    expected = transducer_loss(exact, targets, *lengths, reduction="sum")
    value.backward(), expected.backward()
    assert value.item() == pytest.approx(expected.item(), rel=1e-6)
    assert (single.grad - exact.grad).abs().max() < 5e-5


# not wrong today, but no test notices if it were (mutants T7, T8): the fused form with a blank other than 0
def test_the_fused_form_with_another_blank():
    generator = torch.Generator().manual_seed(0)
    B, T, U, V, H, blank = 2, 5, 3, 6, 4, 4
    parts = [torch.randn(*s, generator=generator).double() for s in ((B, T, H), (B, U + 1, H), (V, H), (V,))]
    targets = torch.tensor([[1, 0, 5], [2, 3, 0]])
    found = []
    for is_fused in (True, False):
        encoded, predicted, weight, bias = own = [x.clone().requires_grad_() for x in parts]
        lengths = torch.tensor([5, 4]), torch.tensor([3, 2])
        if is_fused:
            loss = fused_transducer_loss(*own, targets, *lengths, blank)
        else:
            logits = (encoded.unsqueeze(2) + predicted.unsqueeze(1)).tanh() @ weight.T + bias
            loss = transducer_loss(logits, targets, *lengths, blank)
        loss.backward()
        found.append([loss.detach(), *(x.grad for x in own)])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-7)
