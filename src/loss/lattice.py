"""The transducer's lattice (Graves, arXiv 1211.3711, section 2.4): likelihoods and arc posteriors, exact in float64.

A path goes from (0, 0) to (T - 1, U): a blank moves a frame on, a label a token on, and a last blank ends it. All
nodes of an anti-diagonal t + u depend only on the one before, so a sweep takes T + U small steps for the whole
batch. The backward variables are the forward ones of the reversed lattice, so both take one sweep together.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from src.utils.masks import NEVER


class Arcs(NamedTuple):
    """What the lattice says of a batch."""

    log_likelihood: Tensor  # [B] float64, natural log; minus infinity: no path
    blank: Tensor  # [B, T, U + 1] float64 posterior of each node's blank arc
    label: Tensor  # [B, T, U + 1] of its label arc; 0 where u = U


def transducer_arcs(blank: Tensor, label: Tensor, frame_counts: Tensor, token_counts: Tensor) -> Arcs:
    """log P of each node's blank and label arc [B, T, U + 1] each, frames [B] and tokens [B] (int64) of each utterance.

    Whatever stands in the label arcs of u = U and in nodes beyond an utterance's frames or tokens is ignored. An
    utterance without frames has no path, and posteriors of 0.

    Example: one frame, one token; the only path is the token, then the last blank
        >>> half = torch.full((1, 1, 2), 0.5, dtype=torch.float64).log()
        >>> arcs = transducer_arcs(half, half, torch.tensor([1]), torch.tensor([1]))
        >>> arcs.log_likelihood.exp().tolist(), arcs.blank.tolist(), arcs.label.tolist()
        ([0.25], [[[0.0, 1.0]]], [[[1.0, 0.0]]])
    """
    B, T, columns = blank.shape
    if T == 0:
        return Arcs(
            torch.full((B,), NEVER, dtype=torch.float64, device=blank.device), blank.double(), label.double()
        )
    t, u = torch.arange(T, device=blank.device), torch.arange(columns, device=blank.device)
    frames, tokens = frame_counts[:, None], token_counts[:, None]
    inside = (t < frames).unsqueeze(2) & (u <= tokens).unsqueeze(1)
    blank = blank.double().masked_fill(~inside, NEVER)
    label = label.double().masked_fill(~(inside & (u < tokens).unsqueeze(1)), NEVER)

    # Weights by the node that an arc leads to: forwards, and in the lattice reversed by each utterance's own size.
    # Places below 0 count from the end; what is reversed into such nodes is outside.
    reversed_t, reversed_u = frames - 1 - t, tokens - u
    rows = torch.arange(B, device=blank.device)[:, None, None]
    swap = rows, reversed_t.unsqueeze(2), reversed_u.unsqueeze(1)
    outside = ~inside
    into = torch.cat([F.pad(blank, (0, 0, 1, -1), value=NEVER), blank[swap].masked_fill(outside, NEVER)])
    along = torch.cat([F.pad(label, (1, -1), value=NEVER), label[swap].masked_fill(outside, NEVER)])
    last = blank[rows[:, 0, 0], frame_counts - 1, token_counts]
    start = torch.cat([torch.zeros_like(last), last])
    alpha, reversed_beta = _swept(into, along, start).chunk(2)
    beta = reversed_beta[swap].masked_fill(outside, NEVER)
    log_likelihood = beta[:, 0, 0]

    # After the last blank nothing is left to do.
    after_blank = F.pad(beta, (0, 0, -1, 1), value=NEVER)
    is_end = (t == frames - 1).unsqueeze(2) & (u == tokens).unsqueeze(1)
    after_blank = after_blank.masked_fill(is_end, 0.0)
    after_label = F.pad(beta, (-1, 1), value=NEVER)
    share = alpha - log_likelihood.nan_to_num(neginf=0.0)[:, None, None]
    return Arcs(log_likelihood, (share + blank + after_blank).exp(), (share + label + after_label).exp())


def best_path(blank: Tensor, label: Tensor) -> list[int]:
    """The most probable path of one utterance (Viterbi), as the frame in which it emits each token.

    Args:
        blank, label: log P of each node's blank and label arc, [T, U + 1] each, T at least 1.

    Example: the token in the second of two frames
        >>> blank, label = torch.tensor([[0.9, 0.9], [0.2, 0.9]]).log(), torch.tensor([[0.1, 0], [0.8, 0]]).log()
        >>> best_path(blank, label)
        [1]
    """
    into = F.pad(blank.double(), (0, 0, 1, -1), value=NEVER)
    along = F.pad(label.double(), (1, -1), value=NEVER)
    best = _swept(into[None], along[None], into.new_zeros(1), torch.maximum)[0]
    by_blank = F.pad(best, (0, 0, 1, -1), value=NEVER) + into
    by_label = F.pad(best, (1, -1), value=NEVER) + along
    came_by_label = (by_label > by_blank).tolist()
    t, u = len(blank) - 1, blank.size(1) - 1
    frames = [0] * u
    while u:
        if t and not came_by_label[t][u]:
            t -= 1
        else:
            u -= 1
            frames[u] = t
    return frames


def _swept(
    into: Tensor, along: Tensor, start: Tensor, add: Callable[[Tensor, Tensor], Tensor] = torch.logaddexp
) -> Tensor:
    """Forward variables [B, T, U]: each node's sum over the arc from the frame before (weights ``into``) and the one
    from the token before (``along``), from start [B] at the node (0, 0); with ``maximum`` for ``add`` the best one."""
    B, T, U = into.shape
    into, along = _skewed(into), _skewed(along)
    node = torch.full((B, U), NEVER, dtype=into.dtype, device=into.device)
    node[:, 0] = start
    nodes = [node]
    for d in range(1, T + U - 1):
        before = F.pad(node[:, :-1], (1, 0), value=NEVER)
        node = add(node + into[d], before + along[d])
        nodes.append(node)
    # Node (t, u) stands in row t + u.
    t, u = torch.arange(T, device=into.device)[:, None], torch.arange(U, device=into.device)
    return torch.stack(nodes)[t + u, :, u].permute(2, 0, 1)


def _skewed(x: Tensor) -> Tensor:
    """[B, T, U] -> [T + U - 1, B, U], whose row d holds the nodes (d - u, u).

    Where there is no such node, t < 0 or t >= T, stands any: no arc leads back from there to one that there is, and
    before the first frame nothing has begun.
    """
    B, T, U = x.shape
    t = torch.arange(T + U - 1, device=x.device)[:, None] - torch.arange(U, device=x.device)
    return x[:, t.clamp(0, T - 1), torch.arange(U, device=x.device)].transpose(0, 1)
