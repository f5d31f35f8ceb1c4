"""Each network against a plain version of it, and what only training shows: dropout and running statistics."""

from __future__ import annotations

import copy

import pytest
import torch
from reference import networks
from torch import nn

from src.model import CTCModel
from src.model.dropout import Dropout
from src.model.encoders import ConformerEncoder, DeepSpeech2Encoder, MLPEncoder
from src.model.encoders.attention import RelativeAttention, RotaryAttention
from src.model.encoders.conformer import ConformerBlock, ConvolutionModule, FeedForward
from src.model.normalization import MaskedBatchNorm
from src.transforms import LogMel


def shaken(module: nn.Module) -> nn.Module:
    """Every parameter away from 0 and 1, where a forgotten one would not show."""
    torch.manual_seed(0)
    for parameter in module.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    return module


@torch.no_grad()
def test_conformer_block_is_the_papers():
    block = shaken(ConformerBlock(16, 2, 4, 5, 0.1, "rotary", "layer")).eval()
    x = 2 * torch.randn(1, 11, 16)
    ours = block(x, torch.ones(1, 11, dtype=torch.bool))[0]
    torch.testing.assert_close(ours, networks.conformer_block(x[0], block), atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_rotary_attention_is_a_rotation_of_complex_numbers():
    attention = shaken(RotaryAttention(16, 2)).eval()
    x = torch.randn(1, 300, 16)  # long enough for the slow pairs to turn
    ours = attention(x, torch.ones(1, 300, dtype=torch.bool))[0]
    torch.testing.assert_close(ours, networks.rotary_attention(x[0], attention), atol=1e-4, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_deepspeech2_is_the_papers(cell):
    encoder = shaken(DeepSpeech2Encoder(20, hidden_dim=6, num_layers=2, channels=3, cell=cell)).eval()
    for norm in encoder.convolution_norms:
        norm.weight *= 15  # some values beyond 20, where the activation clips
    x = torch.randn(1, 30, 20)
    ours = encoder(x, torch.tensor([30]))[0][0]
    torch.testing.assert_close(ours, networks.deepspeech2(x[0], encoder), atol=1e-4, rtol=1e-4)


def dropped_values(module: nn.Module, *inputs: torch.Tensor) -> int:
    """How often ``module`` calls its own dropout, which is to have the probability 0.3."""
    calls = []
    assert module.dropout.p == 0.3
    module.dropout.register_forward_hook(lambda *_: calls.append(1))
    module.train()(*inputs)
    return len(calls)


def test_dropout_is_where_the_papers_have_it():
    x, valid, lengths = torch.randn(2, 8, 16), torch.ones(2, 8, dtype=torch.bool), torch.tensor([8, 8])
    assert dropped_values(FeedForward(16, 64, dropout=0.3), x) == 2  # after the activation and at the end
    assert dropped_values(ConvolutionModule(16, 5, dropout=0.3, norm="layer"), x, valid) == 1
    block = ConformerBlock(16, 2, 4, 5, 0.3, "rotary", "layer")
    assert dropped_values(block, x, valid) == 1  # after the attention
    assert {m.p for m in block.modules() if isinstance(m, Dropout)} == {0.3}
    small = {"dim": 16, "num_layers": 2, "num_heads": 2, "kernel_size": 5}
    assert dropped_values(ConformerEncoder(16, **small, dropout=0.3), x, lengths) == 1  # before the blocks
    for attention in (RelativeAttention(16, 2), RotaryAttention(16, 2)):  # the weights are left alone
        torch.testing.assert_close(attention.train()(x, valid), attention(x, valid), rtol=0, atol=0)
    recurrent = DeepSpeech2Encoder(16, hidden_dim=8, num_layers=3, channels=2, dropout=0.3)
    assert dropped_values(recurrent, x, lengths) == 3
    assert dropped_values(MLPEncoder(16, dim=8, num_layers=2, dropout=0.3), x, lengths) == 2


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_dropout_drops_its_share_independently_and_keeps_the_mean(p):
    torch.manual_seed(0)
    x = torch.full((999, 1001), 2.0, requires_grad=True)
    dropped = Dropout(p)(x)
    assert sorted(dropped.unique().tolist()) == pytest.approx([0, 2 / (1 - p)], rel=1e-4)
    kept = (dropped > 0).double()
    tolerance = 5 * (p * (1 - p) / x.numel()) ** 0.5
    assert kept.mean().item() == pytest.approx(1 - p, abs=tolerance)
    for shift in (1, 2, 3, 4, 1001):  # neighbours come from the same draw
        both = (kept.flatten()[shift:] * kept.flatten()[:-shift]).mean().item()
        assert both == pytest.approx((1 - p) ** 2, abs=2 * tolerance)
    dropped.sum().backward()
    torch.testing.assert_close(x.grad, dropped.detach() / 2)
    assert Dropout(p).eval()(x) is x and Dropout(0.0)(x) is x


def test_dropout_keeps_the_dtype_and_follows_the_seed():
    x = torch.randn(3, 5, 7, dtype=torch.bfloat16)
    torch.manual_seed(3)
    first = Dropout(0.5)(x)
    torch.manual_seed(3)
    assert first.dtype == x.dtype and torch.equal(first, Dropout(0.5)(x))
    assert Dropout(0.5)(torch.zeros(2, 0, 4)).shape == (2, 0, 4)
    for p in (-0.1, 1.0):
        with pytest.raises(ValueError, match="dropout"):
            Dropout(p)


def test_upsampled_outputs_follow_each_other_in_time():
    """Output 2 t + i of upsampling 2 is what the i-th half of the head says of encoder frame t."""
    torch.manual_seed(0)
    encoder = MLPEncoder(16, dim=8, num_layers=2)
    model = CTCModel(LogMel(16), encoder, vocab_size=5, upsampling=2).eval()
    features, lengths = torch.randn(2, 9, 16), torch.tensor([9, 4])
    outputs = model(features, lengths)
    encoded, encoded_lengths = outputs["encoded"], outputs["encoded_lengths"]
    assert outputs["log_prob_lengths"].tolist() == [2 * n for n in encoded_lengths.tolist()]
    for i in range(2):
        weight, bias = model.head.weight[5 * i : 5 * i + 5], model.head.bias[5 * i : 5 * i + 5]
        expected = (encoded @ weight.T + bias).log_softmax(-1)
        torch.testing.assert_close(outputs["log_probs"][:, i::2], expected)
    assert model.frame_s == pytest.approx(0.01 * encoder.subsampling_factor / 2)
    with pytest.raises(ValueError, match="upsampling"):
        CTCModel(LogMel(16), encoder, vocab_size=5, upsampling=0)


@torch.no_grad()
def test_dropping_everything_after_the_attention_leaves_the_attention_out():
    block = shaken(ConformerBlock(16, 2, 4, 5, 0.0, "rotary", "layer")).train()
    x, valid = torch.randn(1, 9, 16), torch.ones(1, 9, dtype=torch.bool)
    block.dropout = nn.Dropout(1.0)
    dropped = block(x, valid)
    without = copy.deepcopy(block)
    without.dropout.p = 0.0
    without.attention.output.weight.zero_()
    without.attention.output.bias.zero_()
    torch.testing.assert_close(dropped, without(x, valid))


def test_an_overflow_does_not_poison_the_running_statistics():
    norm = MaskedBatchNorm(2).train()
    valid = torch.ones(1, 3, dtype=torch.bool)
    norm(torch.tensor([[[1.0, 2.0], [float("inf"), 3.0], [2.0, 7.0]]]), valid)
    torch.testing.assert_close(norm.running_mean, torch.tensor([0.0, 0.4]))
    torch.testing.assert_close(norm.running_var, torch.tensor([1.0, 0.9 + 0.1 * 7.0]))


def test_a_clip_without_frames_does_not_move_the_running_statistics():
    encoder = ConformerEncoder(
        20, dim=16, num_layers=2, num_heads=2, kernel_size=5, norm="batch", dropout=0.0
    )
    features = torch.randn(2, 40, 20)
    features[1] = 0
    both, alone = copy.deepcopy(encoder).train(), copy.deepcopy(encoder).train()
    encoded, lengths = both(features, torch.tensor([40, 0]))
    alone(features[:1], torch.tensor([40]))
    assert lengths.tolist() == [10, 0] and encoded.isfinite().all()
    for name, value in alone.named_buffers():
        torch.testing.assert_close(both.get_buffer(name), value)


@pytest.mark.parametrize(
    "encoder",
    [
        ConformerEncoder(20, dim=16, num_layers=1, num_heads=2, kernel_size=5),
        DeepSpeech2Encoder(20, hidden_dim=8, num_layers=1, channels=2),
        MLPEncoder(20, dim=16),
    ],
    ids=lambda encoder: type(encoder).__name__,
)
def test_a_batch_without_a_single_frame_has_no_length(encoder):
    model = CTCModel(LogMel(num_mels=20), encoder, vocab_size=5).eval()
    features, lengths = model.frontend(torch.zeros(2, 100), torch.tensor([100, 0]))  # below one hop
    assert features.size(1) == 0
    outputs = model(features, lengths)
    assert outputs["encoded_lengths"].tolist() == [0, 0]
    assert outputs["log_probs"].isfinite().all()
