"""Slots from CTC: the frames of each token on one path, averaged (Paraformer-v2, An et al., arXiv 2409.17746)."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from src.model.ctc_alignment import ctc_alignment
from src.model.slots.slots import Slots, first_frame
from src.utils.errors import UserError
from src.utils.masks import valid_positions


def ctc_slots(log_probs: Tensor, lengths: Tensor, targets: tuple[Tensor, Tensor] | None = None) -> Slots:
    """CTC's log_probs [B, T, V], lengths [B] -> slots whose vectors [B, U, V] are their frames' mean posteriors.

    The path is the most probable token of each frame, whose text is what CTC's greedy search writes; with targets,
    tokens [B, U] and their lengths [B], it is their best alignment. Blanks fall out.

    Example: frames 0 and 1 are token 2, frame 2 is blank, frame 3 is token 1
        >>> posteriors = torch.tensor([[[0.1, 0, 0.9], [0.3, 0, 0.7], [0.9, 0.1, 0], [0.1, 0.9, 0]]])
        >>> slots = ctc_slots(posteriors.double().log(), torch.tensor([4]))
        >>> slots.weights.tolist(), slots.times.tolist()
        ([[[0.5, 0.5, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]]], [[0, 3]])
        >>> slots.vectors.round(decimals=3).tolist()
        [[[0.2, 0.0, 0.8], [0.1, 0.9, 0.0]]]
    """
    if targets is None:
        positions, counts = _most_probable(log_probs, lengths)
    else:
        positions, counts = ctc_alignment(log_probs, lengths, *targets), targets[1]
    U = targets[0].size(1) if targets is not None else int(counts.max()) if len(counts) else 0
    belongs = positions[:, None] == torch.arange(U, device=positions.device)[:, None]  # [B, U, T]
    weights = belongs / belongs.sum(2, keepdim=True).clamp_min(1)
    vectors = weights.to(log_probs.dtype) @ log_probs.exp()
    return Slots(vectors, counts, weights, first_frame(belongs), aligned=targets is not None)


def _most_probable(log_probs: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """The token of each frame by its position among those found, -1 for none [B, T]; how many there are [B]."""
    # A frame of no numbers is a token of none, for the search to see; the blank would hide it.
    best = log_probs.argmax(-1).masked_fill(log_probs.isnan().any(-1), -1)
    best = best * valid_positions(lengths, log_probs.size(1))
    begins = (best != 0) & (best != F.pad(best, (1, -1)))
    position = begins.cumsum(1) - 1
    return torch.where(best != 0, position, -1), begins.sum(1)


class CTCCompression(nn.Module):
    """A slot is the mean posterior of the frames of its token (``ctc_slots``), through a linear layer.

    English word pieces suit it better than CIF, which has to count them by ear. An alignment has seen the text
    (``Slots.aligned``): what is written in its slots is no measure of what is heard, and a search is.

    Args:
        dim: of the slots, D.
        vocab_size: V.

    Example:
        >>> log_probs = torch.tensor([[[0.1, 0, 0.9], [0.2, 0, 0.8], [0.9, 0.1, 0], [0.1, 0.9, 0]]]).log()
        >>> slots = CTCCompression(dim=4, vocab_size=3)(torch.zeros(1, 4, 4), torch.tensor([4]), log_probs)
        >>> slots.vectors.shape
        torch.Size([1, 2, 4])
    """

    def __init__(self, dim: int, vocab_size: int) -> None:
        super().__init__()
        self.from_posterior = nn.Linear(vocab_size, dim)

    def forward(
        self,
        encoded: Tensor,
        lengths: Tensor,
        log_probs: Tensor | None = None,
        targets: tuple[Tensor, Tensor] | None = None,
    ) -> Slots:
        """As ``SlotPredictor`` has it; raises ``UserError`` without ``log_probs``."""
        if log_probs is None:
            raise UserError("CTCCompression makes slots of what a CTC layer hears; set model.ctc=true")
        slots = ctc_slots(log_probs, lengths, targets)
        vectors = self.from_posterior(slots.vectors)
        real = valid_positions(slots.lengths, vectors.size(1))
        return replace(slots, vectors=vectors * real.unsqueeze(2))
