"""Layers that compute PyTorch's own sums in another order of memory or time: same values, same gradients."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from src.model.encoders.attention import RotaryAttention
from src.model.encoders.convolutions import Conv2d, DepthwiseConv1d
from src.model.encoders.recurrent import BidirectionalLayer


def assert_same(
    ours, theirs, x: torch.Tensor, parameters_of_theirs: list[torch.Tensor], module: nn.Module
) -> None:
    """Outputs and gradients of two functions of ``x``; ``module`` has the parameters of ``ours``."""
    x = x.requires_grad_()
    weights = torch.randn_like(theirs(x))
    values = []
    for function, parameters in ((ours, list(module.parameters())), (theirs, parameters_of_theirs)):
        y = function(x)
        values.append([y, *torch.autograd.grad((y * weights).sum(), [x, *parameters])])
    torch.testing.assert_close(*values, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_bidirectional_layer_is_pytorchs_on_packed_clips(cell):
    torch.manual_seed(0)
    layer, lengths = BidirectionalLayer(cell, 5, 7), torch.tensor([9, 1, 4])
    packed_layer = {"gru": nn.GRU, "lstm": nn.LSTM}[cell](5, 7, batch_first=True, bidirectional=True)
    with torch.no_grad():
        for theirs, own in zip(packed_layer.parameters(), layer.parameters(), strict=True):
            theirs.copy_(own)
    real = (torch.arange(9) < lengths[:, None]).unsqueeze(-1)

    def packed(x):
        sequence = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        return pad_packed_sequence(packed_layer(sequence)[0], batch_first=True)[0]

    assert_same(
        lambda x: layer(x, lengths) * real,
        packed,
        torch.randn(3, 9, 5),
        list(packed_layer.parameters()),
        layer,
    )


def test_depthwise_convolution_is_pytorchs():
    torch.manual_seed(0)
    layer = DepthwiseConv1d(6, kernel_size=5)

    def plain(x):
        return nn.functional.conv1d(x.mT, layer.weight, layer.bias, padding=2, groups=6).mT

    assert_same(layer, plain, torch.randn(2, 11, 6), list(layer.parameters()), layer)


@pytest.mark.parametrize("channels", [1, 3])
def test_convolution_is_pytorchs(channels):
    torch.manual_seed(0)
    layer = Conv2d(channels, 4, (3, 5), stride=(2, 1), padding=(1, 2))
    plain = nn.Conv2d(channels, 4, (3, 5), stride=(2, 1), padding=(1, 2))
    plain.load_state_dict(layer.state_dict())
    assert_same(layer, plain, torch.randn(2, channels, 9, 8), list(plain.parameters()), layer)


def test_depthwise_convolution_returns_from_any_length_in_bf16():
    """With oneDNN's own bf16 kernel, two threads and 56 frames, the call never came back."""
    layer = DepthwiseConv1d(144, kernel_size=15)
    torch.set_num_threads(2)
    try:
        for frames in range(50, 60):
            with torch.autocast("cpu", torch.bfloat16):
                x = torch.randn(1, frames, 144, dtype=torch.bfloat16)
                assert layer(x).shape == (1, frames, 144)
    finally:
        torch.set_num_threads(1)


def test_attention_in_bf16_on_a_cpu_is_the_fused_kernels():
    generator = torch.Generator().manual_seed(0)
    q, k, v = torch.randn(3, 2, 3, 9, 8, generator=generator).bfloat16()
    valid = torch.arange(9) < torch.tensor([[9], [4]])
    ours = RotaryAttention.in_bf16_on_a_cpu(q, k, v, valid)
    truth = F.scaled_dot_product_attention(
        q.double(), k.double(), v.double(), attn_mask=valid[:, None, None, :]
    )
    torch.testing.assert_close(ours.double(), truth, atol=2e-2, rtol=2e-2)
    k = k.detach().clone()
    k[1, :, 4:] = 100.0  # what stands in the padding does not matter
    again = RotaryAttention.in_bf16_on_a_cpu(q, k, v, valid)
    assert torch.equal(ours, again)
