"""Items -> one padded batch."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence

from src.datasets.index import Skipped


def collate(items: list[dict[str, Any] | Skipped]) -> dict[str, Any]:
    """Pads audio [B, N] and tokens [B, U >= 1] with zeros; ``skipped`` lists what could not be used.

    A batch without a single usable item has no other key than ``skipped``.
    """
    batch: dict[str, Any] = {"skipped": [item for item in items if isinstance(item, Skipped)]}
    usable = [item for item in items if not isinstance(item, Skipped)]
    if not usable:
        return batch
    for key in usable[0]:
        values = [item[key] for item in usable]
        if key in ("audio", "tokens"):
            batch[key] = pad_sequence(values, batch_first=True)
            name = "audio_lengths" if key == "audio" else "token_lengths"
            batch[name] = torch.tensor([len(value) for value in values])
            if batch[key].size(1) == 0:  # only empty transcripts: losses want a column to look at
                batch[key] = batch[key].new_zeros(len(values), 1)
        else:
            batch[key] = torch.stack(values) if isinstance(values[0], torch.Tensor) else values
    return batch
