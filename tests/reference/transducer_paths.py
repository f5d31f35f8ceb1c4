"""The transducer's likelihood twice more: every path on its own, and the plain recursion for autograd."""

from __future__ import annotations

import math
from itertools import combinations

import torch
from torch import Tensor


def likelihood_by_paths(log_probs: Tensor, targets: list[int], blank: int = 0) -> float:
    """log_probs [T, U + 1, V] -> P(targets), summed over all orders of T blanks and U labels that end in a blank."""
    T, U = log_probs.size(0), len(targets)
    total = 0.0
    for labels in combinations(range(T + U - 1), U):
        t = u = 0
        path = 0.0
        for step in range(T + U):
            if step in labels:
                path += float(log_probs[t, u, targets[u]])
                u += 1
            else:
                path += float(log_probs[t, u, blank])
                t += 1
        total += math.exp(path)
    return total


def losses_by_recursion(
    logits: Tensor, targets: Tensor, frames: Tensor, tokens: Tensor, blank: int = 0
) -> Tensor:
    """-log P [B] from logits [B, T, U + 1, V], node by node; differentiable."""
    log_probs = logits.log_softmax(-1)
    losses = []
    for b in range(len(logits)):
        T, U = int(frames[b]), int(tokens[b])
        alpha = {(0, 0): log_probs.new_zeros(())}
        for t in range(T):
            for u in range(U + 1):
                arriving = []
                if t:
                    arriving.append(alpha[t - 1, u] + log_probs[b, t - 1, u, blank])
                if u:
                    arriving.append(alpha[t, u - 1] + log_probs[b, t, u - 1, targets[b, u - 1]])
                if arriving:
                    alpha[t, u] = torch.logsumexp(torch.stack(arriving), 0)
        losses.append(-alpha[T - 1, U] - log_probs[b, T - 1, U, blank])
    return torch.stack(losses)


def likelihood_of_short_frames(log_probs: Tensor, targets: list[int], most: int, blank: int = 0) -> float:
    """P(targets) as ``likelihood_by_paths``, of the paths with at most so many labels in a frame; where that is one, it
    takes the frame, and no blank comes after it."""
    T, U = log_probs.size(0), len(targets)

    def rest(t: int, u: int, in_frame: int) -> float:
        if t == T:
            return float(u == U)
        total = math.exp(log_probs[t, u, blank]) * rest(t + 1, u, 0)
        if u < U and in_frame < most:
            after = rest(t + 1, u + 1, 0) if most == 1 else rest(t, u + 1, in_frame + 1)
            total += math.exp(log_probs[t, u, targets[u]]) * after
        return total

    return rest(0, 0, 0)
