"""Projectors: their layers by hand, their sizes, and that a clip's vectors are its own."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from src.model.projectors import (
    LinearProjector,
    MLPProjector,
    MoEProjector,
    MOSAProjector,
    QFormerProjector,
    SwiGLUProjector,
)
from src.model.projectors.projector import stack_frames, stacked_lengths
from src.model.projectors.stacked import RMSNorm
from src.utils.errors import UserError

E, H = 12, 10
SMALL = {
    "mlp": lambda: MLPProjector(stack=4, hidden_dim=16),
    "mosa": lambda: MOSAProjector(hidden_dim=16, router_dim=6),
    "moe": lambda: MoEProjector(stack=4, hidden_dim=16),
    "qformer": lambda: QFormerProjector(window=5, queries=2, num_heads=3),
    "swiglu": lambda: SwiGLUProjector(stack=5, hidden_dim=16),
    "linear": lambda: LinearProjector(stack=5),
}


def size(projector) -> int:
    return sum(p.numel() for p in projector.parameters())


@pytest.fixture(params=SMALL)
def projector(request):
    torch.manual_seed(0)
    return SMALL[request.param]().connect(E, H).eval()


@torch.no_grad()
def test_a_clip_alone_is_as_in_any_batch(projector):
    """Whatever its neighbours and the padding, which may even hold garbage."""
    lengths = torch.tensor([23, 1, 0, 7, 4, 20, 16])
    encoded = torch.randn(len(lengths), 23, E)
    vectors, counts, _ = projector(encoded, lengths)
    assert counts.tolist() == projector.output_lengths(lengths).tolist()
    assert vectors.shape == (len(lengths), int(counts.max()), H)
    for row, length, ours, count in zip(encoded, lengths, vectors, counts, strict=True):
        length, count = int(length), int(count)
        assert not ours[count:].any()
        for frames in {max(length, 1), length + 1, length + 9}:
            alone = torch.full((1, frames, E), 7.0)
            alone[0, :length] = row[:length]
            theirs, (n,), _ = projector(alone, torch.tensor([length]))
            assert int(n) == count
            torch.testing.assert_close(theirs[0, :count], ours[:count], atol=1e-5, rtol=1e-4)


def test_every_weight_learns(projector):
    vectors, _, auxiliary = projector.train()(torch.randn(3, 40, E), torch.tensor([40, 33, 21]))
    (vectors.pow(3).sum() + (0 if auxiliary is None else auxiliary)).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in projector.parameters())


@pytest.mark.parametrize("stack", [1, 2, 4, 5])
def test_stacking_drops_the_rest_or_fills_it_up(stack):
    for frames in range(1, 14):
        x = torch.arange(float(frames)).view(1, frames, 1) + 1
        dropped, filled = (stack_frames(x, stack, padded) for padded in (False, True))
        assert dropped.size(1) == max(0, (frames - stack) // stack + 1) == frames // stack
        assert filled.size(1) == -(-frames // stack)
        assert dropped.flatten().tolist() == x.flatten()[: frames // stack * stack].tolist()
        assert (
            filled.flatten()[:frames].tolist() == x.flatten().tolist() and not filled.flatten()[frames:].any()
        )
        lengths = torch.tensor([frames])
        assert stacked_lengths(lengths, stack, False).item() == dropped.size(1)
        assert stacked_lengths(lengths, stack, True).item() == filled.size(1)
    for padded in (False, True):
        assert stacked_lengths(torch.tensor([0]), stack, padded).item() == 0


@pytest.mark.parametrize(
    "make,dims,expected",
    [
        (lambda: MLPProjector(4, 2048), (1280, 1024), 12_585_984),
        (lambda: SwiGLUProjector(5, 8192), (1280, 2048), 121_643_264),
        # 6400 of the norm, 6400 x 3584 weights and 3584 biases, 3584 of the norm
        (lambda: LinearProjector(5), (1280, 3584), 22_951_168),
        # convolutions 3 x 1280 x 1280 + 1280 and 3 x 1280 x 1024 + 1024; router 1025 x 512 + 513 x 4;
        # four experts of 1025 x 4096 + 4097 x 1024
        (lambda: MOSAProjector(), (1280, 1024), 4_916_480 + 3_933_184 + 526_852 + 4 * 8_393_728),
        # norm 5120; five experts of (5120 + 1024) x 2048; router 4 x 5120
        (lambda: MoEProjector(), (1280, 1024), 5_120 + 5 * 12_582_912 + 20_480),
        # queries 3 x 1280; layers of 16 x 1280^2 + 19 x 1280; head 1281 x 1024
        (lambda: QFormerProjector(), (1280, 1024), 3_840 + 2 * 26_238_720 + 1_311_744),
    ],
    ids=["mlp", "swiglu", "linear", "mosa", "moe", "qformer"],
)
def test_sizes(make, dims, expected):
    with torch.device("meta"):
        projector = make().connect(*dims)
    assert size(projector) == expected


def rms_norm(x, weight):
    return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * weight


def gelu(x):
    return x * 0.5 * (1 + torch.erf(x / 2**0.5))


@torch.no_grad()
def test_layers_by_hand():
    """Every formula again, in plain operations."""
    x = torch.randn(1, 20, E)
    lengths = torch.tensor([20])
    fours, fives = x.reshape(1, 5, 4 * E), x.reshape(1, 4, 5 * E)

    mlp = SMALL["mlp"]().connect(E, H)
    first, norm, _, second, last = mlp.layers
    hidden = gelu(rms_norm(fours @ first.weight.T, norm.weight))
    torch.testing.assert_close(
        mlp(x, lengths).vectors, rms_norm(hidden @ second.weight.T, last.weight), atol=1e-5, rtol=1e-4
    )

    swiglu = SMALL["swiglu"]().connect(E, H)
    normed = rms_norm(fives, swiglu.norm_in.weight)
    gate = normed @ swiglu.gate.weight.T
    hidden = gate * torch.sigmoid(gate) * (normed @ swiglu.up.weight.T)
    expected = rms_norm(hidden @ swiglu.down.weight.T, swiglu.norm_out.weight)
    torch.testing.assert_close(swiglu(x, lengths).vectors, expected, atol=1e-5, rtol=1e-3)
    assert swiglu.gate.weight.std().item() == pytest.approx(0.02, rel=0.2)

    linear = SMALL["linear"]().connect(E, H).eval()
    before, layer, _, after = linear.layers
    expected = rms_norm(rms_norm(fives, before.weight) @ layer.weight.T + layer.bias, after.weight)
    torch.testing.assert_close(linear(x, lengths).vectors, expected, atol=1e-5, rtol=1e-4)

    mosa = SMALL["mosa"]().connect(E, H)
    y = x
    for convolution in mosa.convolutions:
        padded = F.pad(y, (0, 0, 1, 1))
        windows = padded.unfold(1, 3, 2)  # [1, T', E, 3]
        y = gelu(torch.einsum("btek,oek->bto", windows, convolution.weight) + convolution.bias)
    weights = mosa.router(y).softmax(-1)
    expected = torch.einsum("btn,nbtd->btd", weights, torch.stack([expert(y) for expert in mosa.experts]))
    torch.testing.assert_close(mosa(x, lengths).vectors, expected, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_norms_are_computed_in_float32_also_of_half_precision():
    """The mean of 300 squares of 300 is more than float16 has numbers for."""
    x = torch.full((1, 300), 300.0, dtype=torch.float16)
    normed = RMSNorm(300)(x)
    assert normed.dtype == torch.float16 and torch.equal(normed, torch.ones_like(normed))
    noise = torch.randn(4, 300).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(RMSNorm(300)(noise), rms_norm(noise.float(), 1.0).bfloat16())


@torch.no_grad()
def test_mixture_sends_each_stack_to_its_two_best_experts():
    torch.manual_seed(0)
    moe = SMALL["moe"]().connect(E, H).eval()
    x, lengths = torch.randn(2, 20, E), torch.tensor([20, 8])
    vectors, counts, auxiliary = moe(x, lengths)
    used, squares, n = torch.zeros(4), 0.0, 0
    for row in range(2):
        for t in range(int(counts[row])):
            stack = moe.norm(x[row, 4 * t : 4 * t + 4].flatten())
            logits = moe.router.weight @ stack
            p = logits.softmax(0)
            one, other = p.argsort(descending=True)[:2].tolist()
            expected = moe.experts[0](stack)
            for choice in (one, other):
                expected = expected + p[choice] / (p[one] + p[other]) * moe.experts[1 + choice](stack)
            torch.testing.assert_close(vectors[row, t], expected, atol=1e-5, rtol=1e-4)
            used, squares, n = used + p, squares + float(logits.exp().sum().log()) ** 2, n + 1
    balance = 4 * float(((used / n - 0.25) ** 2).mean())
    assert float(auxiliary) == pytest.approx(0.01 * balance + 1e-4 * squares / n, rel=1e-4)


def test_a_balanced_mixture_has_nothing_to_balance():
    moe = MoEProjector(stack=1, hidden_dim=4, calm=0.0).connect(E, H).eval()
    torch.nn.init.zeros_(moe.router.weight)
    x = torch.randn(1, 6, E)
    assert float(moe(x, torch.tensor([6])).auxiliary.detach()) == pytest.approx(0.0, abs=1e-9)
    assert float(moe(x, torch.tensor([0])).auxiliary.detach()) == 0.0  # and no NaN where nothing was heard


@torch.no_grad()
def test_the_router_s_jitter_is_a_factor_in_training_alone():
    """Of logits that are 0 nothing changes; of others a little, and not in evaluation."""
    torch.manual_seed(0)
    moe = MoEProjector(stack=1, hidden_dim=4, jitter=0.5, balance=0.0, calm=1.0).connect(E, H)
    x, lengths = torch.randn(1, 6, E), torch.tensor([6])
    before = [float(moe.train(mode)(x, lengths).auxiliary) for mode in (False, False, True, True)]
    assert before[0] == before[1] and len({*before}) == 3
    torch.nn.init.zeros_(moe.router.weight)
    assert float(moe.train()(x, lengths).auxiliary) == pytest.approx(math.log(4) ** 2, rel=1e-5)


@torch.no_grad()
def test_queries_of_a_window_see_it_alone():
    torch.manual_seed(0)
    qformer = SMALL["qformer"]().connect(E, H).eval()
    x, lengths = torch.randn(1, 15, E), torch.tensor([15])
    changed = x.clone()
    changed[:, 5:10] += 1
    differs = (qformer(x, lengths).vectors - qformer(changed, lengths).vectors).abs().amax(-1)[0] > 1e-6
    assert differs.tolist() == [False, False, True, True, False, False]


def test_settings_that_cannot_be():
    with pytest.raises(UserError, match="stack=0 must be a whole number of at least 1"):
        MLPProjector(stack=0)
    for make in (MLPProjector, SwiGLUProjector, MoEProjector, MOSAProjector):
        with pytest.raises(UserError, match="hidden_dim=0 must be a whole number of at least 1"):
            make(hidden_dim=0)
    with pytest.raises(
        UserError, match="num_heads=5 does not divide the encoder's width 16; choose a divisor"
    ):
        QFormerProjector(num_heads=5).connect(16, 8)
    expected = (
        r"do not fit into the memory \(stack=10000000000, hidden_dim=2048, from 1280 to 8\); choose less"
    )
    with pytest.raises(UserError, match=expected):
        MLPProjector(stack=10**10).connect(1280, 8)
    with pytest.raises(ValueError, match="top=5 must be from 1 to num_experts=4"):
        MoEProjector(top=5)
