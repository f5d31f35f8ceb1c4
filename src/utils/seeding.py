"""Addressed randomness: a random number is looked up by what it is for, never consumed from a stream.

Because the generator depends on the address alone, neither the number of workers, nor the order of
files, nor a resumed run changes what an utterance receives.
"""

from __future__ import annotations

import hashlib

import numpy as np


def addressed_rng(*address: int | str) -> np.random.Generator:
    """A generator that is a pure function of its address, e.g. ``(seed, epoch, utterance_id)``.

    >>> a = addressed_rng(7, 0, "a/b").random()
    >>> a == addressed_rng(7, 0, "a/b").random(), a == addressed_rng(7, 1, "a/b").random()
    (True, False)
    """
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in address)
    digest = hashlib.blake2b(text.encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little")))
