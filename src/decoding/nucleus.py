"""The nucleus of a distribution (Holtzman et al., arXiv 1904.09751): what sampling draws from."""

from __future__ import annotations

import torch
from torch import Tensor


def nucleus_of(log_probs: Tensor, temperature: float, top_p: float) -> Tensor:
    """log_probs [..., V] -> probabilities of the smallest set of tokens that has ``top_p`` of them, others 0.

    >>> nucleus_of(torch.tensor([0.5, 0.3, 0.2]).log(), temperature=1.0, top_p=0.7).tolist()
    [0.625, 0.375, 0.0]
    """
    # The best one at 0, which no temperature moves: the coldest ones would make all of them -inf.
    heights = log_probs - log_probs.amax(-1, keepdim=True)
    probabilities, order = (heights / temperature).softmax(-1).sort(stable=True, dim=-1, descending=True)
    before = probabilities.cumsum(-1) - probabilities
    kept = probabilities.masked_fill(before >= top_p, 0.0)  # the first one always stays
    return torch.zeros_like(kept).scatter(-1, order, kept / kept.sum(-1, keepdim=True))
