"""Names of prefixes in a beam: equal ones are recognised whichever way they were reached, without comparing texts."""

from __future__ import annotations

import torch
from torch import Tensor

EMPTY = 1  # the name of the empty prefix
BASE = 6364136223846793005
_INVERSE = (pow(BASE, -1, 2**64) + 2**63) % 2**64 - 2**63  # as a signed number


def longer(name: Tensor, token: Tensor) -> Tensor:
    """The name of a prefix with one token more: a polynomial of its tokens, modulo 2^64.

    So the name after n tokens more, however they came, is ``name * BASE ** n + longer(0, ...)`` of these alone.
    """
    return torch.add(token + 1, name, alpha=BASE)


def shorter(name: Tensor, last: Tensor) -> Tensor:
    """The name of a prefix without its last token.

    >>> shorter(longer(torch.tensor(12), torch.tensor(7)), torch.tensor(7))
    tensor(12)
    """
    return (name - 1 - last) * _INVERSE


def no_names(batch_size: int, beam_size: int, device: torch.device) -> Tensor:
    """Names [B, K] for slots that hold no prefix, all different."""
    return -1 - torch.arange(beam_size, device=device).repeat(batch_size, 1)


def find_parents(name: Tensor, last: Tensor) -> tuple[Tensor, Tensor]:
    """[B, K] each -> whether the beam holds a prefix without its last token, too, and in which slot (else any)."""
    names, slots = name.sort(1)
    parent_name = shorter(name, last)
    place = torch.searchsorted(names, parent_name).clamp_(max=name.size(1) - 1)
    return names.gather(1, place) == parent_name, slots.gather(1, place)
