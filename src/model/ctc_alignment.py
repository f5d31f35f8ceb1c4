"""The most probable CTC alignment of a text (Viterbi), for whole batches."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from src.utils.masks import NEVER, valid_positions


@torch.no_grad()
def ctc_alignment(
    log_probs: Tensor, lengths: Tensor, tokens: Tensor, token_lengths: Tensor, blank: int = 0
) -> Tensor:
    """Which token each frame belongs to on the best path.

    Args:
        log_probs: [B, T, V], natural log.
        lengths, tokens, token_lengths: [B], [B, U], [B].

    Returns [B, T]: the position of the frame's token in its text; -1 for blank, in padding, and everywhere in a clip
    with too few frames for its text.

    Example:
        >>> log_probs = torch.tensor([[[0.1, 0.9], [0.8, 0.2], [0.3, 0.7]]]).log()
        >>> ctc_alignment(log_probs, torch.tensor([3]), torch.tensor([[1, 1]]), torch.tensor([2])).tolist()
        [[0, -1, 1]]
    """
    B, T, _ = log_probs.shape
    U = tokens.size(1)
    states = 2 * U + 1  # blank, token, blank, token, ..., blank
    labels = torch.full((B, states), blank, device=tokens.device)
    labels[:, 1::2] = tokens
    emissions = log_probs.gather(2, labels[:, None].expand(-1, T, -1)).double()
    # From two states before: into a token that differs from the one before it.
    # Sliced, not padded by -2: where all texts are empty, there is but one state.
    may_skip = F.pad(labels[:, 2:] != labels[:, :-2], (2, 0))[:, :states] & (
        torch.arange(states, device=tokens.device) % 2 == 1
    )
    best = torch.full((B, states), NEVER, dtype=torch.float64, device=log_probs.device)
    best[:, :2] = emissions[:, 0, :2] if T else NEVER
    steps = []
    for t in range(1, T):
        came = torch.stack(
            [
                best,
                F.pad(best, (1, -1), value=NEVER),
                F.pad(best, (2, 0), value=NEVER)[:, :states].masked_fill(~may_skip, NEVER),
            ]
        )
        value, step = came.max(0)
        inside = (t < lengths)[:, None]
        best = torch.where(inside, value + emissions[:, t], best)
        steps.append(torch.where(inside, step, 0))
    last = 2 * token_lengths
    ends = torch.stack([last, (last - 1).clamp_min(0)], 1)
    values = best.gather(1, ends)
    state = ends.gather(1, values.argmax(1, keepdim=True))
    possible = (values.amax(1, keepdim=True) > NEVER) & (lengths > 0)[:, None]
    path = [state]
    for step in reversed(steps):
        path.append(path[-1] - step.gather(1, path[-1]))
    if not T:
        return torch.full((B, 0), -1, device=tokens.device)
    path = torch.cat(path[::-1], 1)
    inside = valid_positions(lengths, T)
    return torch.where(possible & inside & (path % 2 == 1), path // 2, -1)
