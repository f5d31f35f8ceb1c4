from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from src.model.dropout import Dropout
from src.model.encoders import ConformerEncoder, DeepSpeech2Encoder, MLPEncoder, PyramidalEncoder
from src.model.encoders.attention import RelativeAttention, RotaryAttention
from src.model.normalization import MaskedBatchNorm

SMALL = {"dim": 16, "num_layers": 2, "num_heads": 2, "kernel_size": 5}
ENCODERS = {
    "conformer rotary": lambda: ConformerEncoder(20, **SMALL),
    "conformer relative": lambda: ConformerEncoder(20, **SMALL, attention="relative"),
    "conformer batch norm": lambda: ConformerEncoder(20, **SMALL, norm="batch"),
    "deepspeech2 gru": lambda: DeepSpeech2Encoder(20, hidden_dim=8, num_layers=2, channels=4),
    "deepspeech2 lstm, batch norm, 40 ms": lambda: DeepSpeech2Encoder(
        20, hidden_dim=8, num_layers=2, channels=4, cell="lstm", norm="batch", time_stride=2
    ),
    "mlp": lambda: MLPEncoder(20, dim=16),
    "pyramidal": lambda: PyramidalEncoder(20, hidden_dim=8, num_layers=2),
}


def trained_a_little(encoder: torch.nn.Module) -> torch.nn.Module:
    """Running statistics and biases away from their initial values, which could hide a missing mask."""
    torch.manual_seed(0)
    for parameter in encoder.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    encoder.train()
    for _ in range(3):
        encoder(torch.randn(4, 50, 20) + 1, torch.tensor([50, 30, 41, 8]))
    return encoder.eval()


@pytest.mark.parametrize("name", ENCODERS)
def test_result_does_not_depend_on_batch_or_padding(name):
    encoder = trained_a_little(ENCODERS[name]())
    lengths = torch.tensor([33, 1, 60, 18, 7])
    features = torch.randn(5, 75, 20)  # garbage beyond the lengths, and more padding than the longest needs
    features[torch.arange(75) >= lengths[:, None]] = 0.0
    together, together_lengths = encoder(features, lengths)
    for b, length in enumerate(lengths.tolist()):
        alone, alone_length = encoder(features[b : b + 1, :length], lengths[b : b + 1])
        assert alone_length.item() == together_lengths[b].item() == alone.size(1)
        torch.testing.assert_close(alone[0], together[b, : alone.size(1)], atol=1e-5, rtol=1e-5)
        assert together[b, alone.size(1) :].abs().max() == 0 if alone.size(1) < together.size(1) else True


@pytest.mark.parametrize("name", ["conformer rotary", "conformer batch norm", "deepspeech2 gru"])
def test_padding_does_not_reach_the_gradient_in_training(name):
    encoder = ENCODERS[name]().train()
    for module in encoder.modules():
        if isinstance(module, Dropout):
            module.p = 0.0
        if isinstance(module, RotaryAttention):
            module.dropout = 0.0
    features, lengths = torch.randn(2, 40, 20), torch.tensor([40, 24])
    features[1, 24:] = 0
    gradients = []
    for padding in (0, 20):
        encoder.zero_grad()
        encoded, _ = encoder(F.pad(features, (0, 0, 0, padding)), lengths)
        encoded.square().sum().backward()
        gradients.append([p.grad.clone() for p in encoder.parameters()])
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ENCODERS)
def test_frames_out_match_subsampling_and_a_single_frame_works(name):
    encoder = ENCODERS[name]().eval()
    for T in (1, 2, 3, 4, 5, 9):
        encoded, lengths = encoder(torch.randn(1, T, 20), torch.tensor([T]))
        assert encoded.size(1) == lengths.item() == math.ceil(T / encoder.subsampling_factor)
        assert encoded.isfinite().all()
    encoded, lengths = encoder(torch.randn(2, 5, 20), torch.tensor([5, 0]))
    assert lengths.tolist()[1] == 0 and encoded.isfinite().all()


def test_relative_attention_is_the_papers_sum_written_with_loops():
    torch.manual_seed(0)
    T, D, H = 5, 8, 2
    attention = RelativeAttention(D, H).eval()
    attention.content_bias.data.normal_()
    attention.position_bias.data.normal_()
    x = torch.randn(1, T, D)
    q, k, v = attention.qkv(x)[0].view(T, 3, H, D // H).unbind(1)
    expected = torch.zeros(T, H, D // H)
    for h in range(H):
        for i in range(T):
            scores = []
            for j in range(T):
                angles = [(i - j) / 10000 ** (2 * c / D) for c in range(D // 2)]
                r = torch.tensor([f(a) for a in angles for f in (math.sin, math.cos)])
                r = attention.position(r).view(H, D // H)[h]
                u, w = attention.content_bias[h, 0], attention.position_bias[h, 0]
                scores.append(((q[i, h] + u) @ k[j, h] + (q[i, h] + w) @ r) / math.sqrt(D // H))
            expected[i, h] = torch.stack(scores).softmax(0) @ v[:, h]
    expected = attention.output(expected.reshape(T, D))
    torch.testing.assert_close(
        attention(x, torch.ones(1, T, dtype=torch.bool))[0], expected, atol=1e-5, rtol=1e-5
    )


def test_rotary_scores_depend_on_distance_only():
    attention = RotaryAttention(8, 1)
    cos, sin = attention.angles(12, torch.device("cpu"))
    q = attention.rotate(torch.randn(8).expand(1, 1, 12, 8), cos, sin)[0, 0]
    k = attention.rotate(torch.randn(8).expand(1, 1, 12, 8), cos, sin)[0, 0]
    scores = q @ k.T
    for distance in range(-11, 12):
        diagonal = scores.diagonal(distance)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal), atol=1e-4, rtol=1e-4)


def test_masked_batch_norm_is_torchs_on_the_real_frames():
    torch.manual_seed(0)
    x, lengths = torch.randn(3, 10, 4) * 2 + 1, torch.tensor([10, 4, 7])
    valid = torch.arange(10) < lengths[:, None]
    ours, theirs = MaskedBatchNorm(4), torch.nn.BatchNorm1d(4)
    torch.testing.assert_close(ours(x, valid)[valid], theirs(x[valid]))
    torch.testing.assert_close(ours.running_mean, theirs.running_mean)
    torch.testing.assert_close(ours.running_var, theirs.running_var)
    ours.eval(), theirs.eval()
    torch.testing.assert_close(ours(x, valid)[valid], theirs(x[valid]))


@pytest.mark.parametrize(
    "dim,layers,heads,ours,paper",
    [(144, 16, 4, 8.7, 10.3), (256, 17, 4, 28.9, 30.7), (512, 18, 8, 121.4, 118.8)],
    ids=["S", "M", "L"],
)
def test_parameter_counts_stand_beside_the_papers(dim, layers, heads, ours, paper):
    """The paper counts an LSTM decoder too (1.5 to 9 M), which we have not, and states no position layers."""
    with torch.device("meta"):
        encoder = ConformerEncoder(80, dim=dim, num_layers=layers, num_heads=heads, attention="relative")
    millions = sum(p.numel() for p in encoder.parameters()) / 1e6
    assert millions == pytest.approx(ours, abs=0.1)
    assert millions == pytest.approx(paper, rel=0.16)


@pytest.mark.parametrize(
    "build,message",
    [
        (lambda: ConformerEncoder(80, attention="global"), "attention='global'"),
        (lambda: ConformerEncoder(80, norm="group"), "norm='group'"),
        (lambda: ConformerEncoder(80, kernel_size=32), "kernel_size=32"),
        (lambda: ConformerEncoder(80, dim=30, num_heads=4), "dim=30"),
        (lambda: DeepSpeech2Encoder(80, cell="rnn"), "cell='rnn'"),
    ],
)
def test_wrong_choices_are_named(build, message):
    with pytest.raises(ValueError, match=message):
        build()
