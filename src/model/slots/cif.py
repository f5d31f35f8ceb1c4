"""Continuous integrate-and-fire (Dong and Xu, arXiv 1905.11235), in closed form.

Each frame carries a weight; a slot is a stretch of frames whose weights add up to 1, and a frame on a border is split
between two. With c the running sum of the weights, the part of frame t in slot u is the part of [c_{t-1}, c_t] inside
[u, u + 1]: no loop over time, exact in float64 (a float32 loop loses a text's last token now and then).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from src.model.slots.slots import Slots, first_frame
from src.utils.masks import valid_positions

LEAST_PART = 1e-6  # of a frame in a slot that it begins; less may be a rounding error of the sums


def integrate_and_fire(weights: Tensor, counts: Tensor, slots: int | None = None) -> tuple[Tensor, Tensor]:
    """Which frames make up each slot.

    Args:
        weights: [B, T] at least 0; may be above 1, so that a frame fires more than once.
        counts: [B] slots of each utterance, at most the sum of its weights.
        slots: U; without it the largest count.

    Returns the parts [B, U, T] (float64; a real slot's row sums to 1) and the frames in which slots begin [B, U].

    Example: the second frame is split between two slots
        >>> parts, times = integrate_and_fire(torch.tensor([[0.6, 0.9, 0.5]]), torch.tensor([2]))
        >>> parts.round(decimals=3).tolist(), times.tolist()
        ([[[0.6, 0.4, 0.0], [0.0, 0.5, 0.5]]], [[0, 1]])
    """
    ends = weights.double().cumsum(1)[:, None]  # [B, 1, T]
    starts = F.pad(ends, (1, -1))
    U = slots if slots is not None else int(counts.max()) if len(counts) else 0
    slot = torch.arange(U, device=weights.device)[:, None]  # [U, 1]
    parts = ends.clamp(slot, slot + 1) - starts.clamp(slot, slot + 1)
    parts = parts * valid_positions(counts, U).unsqueeze(2)
    return parts, first_frame(parts > LEAST_PART)


class CIFPredictor(nn.Module):
    """alpha = relu(sigmoid(W relu(conv(h))) * smooth - noise), a weight for each frame (Gao et al., arXiv 2206.08317).

    In training the weights are scaled to sum to the number of tokens, and the sum before that is taught to be it
    (``Slots.counted``). In a search a tail weight is added after the last frame, for a token that is not quite full,
    and there are as many slots as are full.

    Args:
        dim: of the encoded frames, D.
        kernel_size: of the convolution; odd.
        smooth, noise: of the formula.
        tail: the weight after the last frame.
        dropout: before the last layer.

    Example:
        >>> predictor = CIFPredictor(dim=8).eval()
        >>> targets = torch.tensor([[1, 2, 3]]), torch.tensor([3])
        >>> slots = predictor(torch.randn(1, 20, 8), torch.tensor([20]), targets=targets)
        >>> slots.vectors.shape
        torch.Size([1, 3, 8])
    """

    def __init__(
        self,
        dim: int,
        kernel_size: int = 3,
        smooth: float = 1.0,
        noise: float = 0.0,
        tail: float = 0.45,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size={kernel_size} must be odd")
        if not 0 <= tail < 1:
            raise ValueError(f"tail={tail} must be at least 0 and below 1, or silence would fire a token")
        self.smooth, self.noise, self.tail = smooth, noise, tail
        self.convolution = nn.Conv1d(dim, dim, kernel_size, padding=kernel_size // 2)
        self.output = nn.Linear(dim, 1)
        self.dropout = nn.Dropout(dropout)

    def weights(self, encoded: Tensor, lengths: Tensor) -> Tensor:
        """encoded [B, T, D] (zeros beyond the lengths [B]) -> alpha [B, T] float32, 0 in padding."""
        hidden = self.convolution(encoded.transpose(1, 2)).transpose(1, 2).relu()
        alpha = self.output(self.dropout(hidden)).squeeze(2).float().sigmoid() * self.smooth - self.noise
        return alpha.relu() * valid_positions(lengths, encoded.size(1))

    def forward(
        self,
        encoded: Tensor,
        lengths: Tensor,
        log_probs: Tensor | None = None,
        targets: tuple[Tensor, Tensor] | None = None,
    ) -> Slots:
        """As ``SlotPredictor`` has it."""
        alpha = self.weights(encoded, lengths).double()
        counted = alpha.sum(1)
        if targets is None:
            tail = torch.full_like(counted, self.tail)[:, None]
            alpha = F.pad(alpha, (0, 1)).scatter_add(1, lengths[:, None], tail)
            # What is no number fills a slot that is none either, for the search to see; it would else be silence.
            counts = alpha.sum(1).floor().nan_to_num(1.0).long()
        else:
            counts = targets[1]
            alpha = alpha * (counts / counted.clamp_min(1e-6))[:, None]
            # Of a clip whose weights are all 0 no scaling makes a text; its slots stay empty.
            alpha = torch.where(counted[:, None] > 1e-6, alpha, 0.0)
        parts, times = integrate_and_fire(alpha, counts, None if targets is None else targets[0].size(1))
        parts = parts[..., : encoded.size(1)]  # nothing is heard in the tail
        # A slot that (but for rounding) the tail makes alone is at its clip's end, whatever stands beside it.
        times = times.minimum((lengths - 1).clamp_min(0)[:, None])
        vectors = parts.to(encoded.dtype) @ encoded
        return Slots(vectors, counts, parts, times, counted)
