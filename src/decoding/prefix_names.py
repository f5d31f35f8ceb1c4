"""Names of prefixes in a beam: equal ones are recognised whichever way they were reached, without comparing texts."""

from __future__ import annotations

import torch
from torch import Tensor

EMPTY = 1  # the name of the empty prefix


def longer(name: Tensor, token: Tensor) -> Tensor:
    """The name of a prefix with one token more: a 64-bit hash (multiply-and-xorshift, wrapping)."""
    mixed = torch.add(token, name, alpha=6364136223846793005)
    return mixed ^ (mixed >> 29)


def no_names(batch_size: int, beam_size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Names for slots that hold no prefix, and for the parents of those without one: [B, K] each, all different."""
    slots = torch.arange(beam_size, device=device).repeat(batch_size, 1)
    return -1 - slots, -1 - beam_size - slots


def find_parents(name: Tensor, parent_name: Tensor) -> tuple[Tensor, Tensor]:
    """[B, K] each -> whether the beam holds a prefix without its last token, too, and in which slot (else any)."""
    names, slots = name.sort(1)
    place = torch.searchsorted(names, parent_name).clamp_(max=name.size(1) - 1)
    return names.gather(1, place) == parent_name, slots.gather(1, place)
