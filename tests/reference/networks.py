"""The networks as their papers write them: one unpadded clip [T, ...], in evaluation, parameters by name."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def layer_norm(x: Tensor, norm: torch.nn.LayerNorm) -> Tensor:
    mean = x.mean(-1, keepdim=True)
    variance = (x - mean).square().mean(-1, keepdim=True)
    return (x - mean) / (variance + norm.eps).sqrt() * norm.weight + norm.bias


def swish(x: Tensor) -> Tensor:
    return x / (1 + (-x).exp())


def linear(x: Tensor, layer: torch.nn.Linear) -> Tensor:
    return x @ layer.weight.T + layer.bias


def feed_forward(x: Tensor, module) -> Tensor:
    """Conformer (2005.08100), figure 4."""
    return linear(swish(linear(layer_norm(x, module.norm), module.expand)), module.contract)


def convolution(x: Tensor, module) -> Tensor:
    """Conformer, figure 2, with a layer norm; x [T, D]."""
    T, D = x.shape
    values, gates = linear(layer_norm(x, module.norm), module.gate).split(D, dim=-1)
    x = values / (1 + (-gates).exp())
    kernel = module.depthwise.weight[:, 0]  # [D, K]
    K = kernel.size(1)
    mixed = torch.zeros(T, D)
    for t in range(T):
        for k in range(K):
            source = t + k - K // 2
            if 0 <= source < T:
                mixed[t] += x[source] * kernel[:, k]
    mixed = mixed + module.depthwise.bias
    return linear(swish(layer_norm(mixed, module.depthwise_norm)), module.output)


def rotary_attention(x: Tensor, module) -> Tensor:
    """RoFormer (2104.09864): a pair of channels is a complex number, turned by t / 10000^(2i / d); x [T, D]."""
    T, D = x.shape
    H = module.num_heads
    d = D // H
    q, k, v = linear(x, module.qkv).view(T, 3, H, d).unbind(1)
    heads = []
    for h in range(H):
        scores = torch.zeros(T, T)
        for i in range(d // 2):
            speed = 10000 ** (-2 * i / d)
            turn = torch.polar(torch.ones(T), torch.arange(T) * speed)
            turned_q = torch.complex(q[:, h, i], q[:, h, i + d // 2]) * turn
            turned_k = torch.complex(k[:, h, i], k[:, h, i + d // 2]) * turn
            scores += (turned_q[:, None] * turned_k[None].conj()).real
        heads.append((scores / math.sqrt(d)).softmax(-1) @ v[:, h])
    return linear(torch.cat(heads, -1), module.output)


def conformer_block(x: Tensor, block) -> Tensor:
    """Conformer, equation 1; x [T, D]."""
    x = x + feed_forward(x, block.feed_forward_in) / 2
    x = x + rotary_attention(layer_norm(x, block.attention_norm), block.attention)
    x = x + convolution(x, block.convolution)
    x = x + feed_forward(x, block.feed_forward_out) / 2
    return layer_norm(x, block.norm)


def deepspeech2(features: Tensor, encoder) -> Tensor:
    """Deep Speech 2 (1512.02595), section 3: convolutions, min(max(x, 0), 20), recurrence; features [T, F]."""
    x = features[None, None]  # [1, 1, T, F]
    for layer, norm in zip(encoder.convolutions, encoder.convolution_norms, strict=True):
        x = torch.nn.functional.conv2d(x, layer.weight, layer.bias, layer.stride, layer.padding)
        _, C, T, bins = x.shape
        frames = torch.stack([layer_norm(x[0, :, t].reshape(C * bins), norm) for t in range(T)])
        x = frames.clamp(0, 20).view(T, C, bins).transpose(0, 1)[None]
    x = x[0].transpose(0, 1).reshape(T, C * bins)
    for layer, norm in zip(encoder.recurrent, encoder.recurrent_norms, strict=True):
        x = layer_norm(
            torch.cat([layer.forward_rnn(x)[0], layer.backward_rnn(x.flip(0))[0].flip(0)], -1), norm
        )
    return x
