"""Which sentence goes to which split: no dev or test sentence is ever a training sentence.

Grammar sentences are dealt by a hash of their words, so none can change sides when sizes or seeds change; the
lines of a user's text are shuffled and cut.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from itertools import count
from pathlib import Path

from src.synthetic_speech.grammar import sentence
from src.utils.errors import UserError
from src.utils.seeding import addressed_rng

MAX_WORDS = 12  # a clip of about 5 s
MIN_HELD_OUT_WORDS = 3  # a held-out "help" would be a word never heard in training
ALPHABET = frozenset("abcdefghijklmnopqrstuvwxyz'")


def split_of(transcript: str) -> str:
    """The split that owns a sentence: 90 % train, 5 % dev, 5 % test; the shortest always train.

    >>> split_of("help"), split_of("enter six two five") in ("train", "dev", "test")
    ('train', True)
    """
    if len(transcript.split()) < MIN_HELD_OUT_WORDS:
        return "train"
    share = hashlib.blake2b(transcript.encode(), digest_size=4).digest()[0]
    return "dev" if share < 13 else "test" if share < 26 else "train"


def grammar_sentences(split: str, style: str, seed: int) -> Iterator[str]:
    """Endless sentences of one split, CAPITALS for spelled letters; repeats only when new ones are rare."""
    seen: set[str] = set()
    for i in count():
        rng = addressed_rng(seed, "sentence", split, i)
        for attempt in count():
            drawn = sentence(rng, style)
            is_new = drawn not in seen or len(drawn.split()) < MIN_HELD_OUT_WORDS or attempt > 500
            if is_new and split_of(drawn.lower()) == split:
                break
        seen.add(drawn)
        yield drawn


def text_sentences(path: Path, seed: int) -> dict[str, list[str]]:
    """The lines of a text file or manifest (``read_lines``), normalised, in pieces of at most 12 words, by split.

    Dev and test get 5 % each. Lines with letters outside a-z after normalisation are left out. Raises
    ``UserError`` when the file cannot be read or holds fewer than 10 different usable lines.
    """
    # Here, so that the speaking processes start without these packages.
    from src.text_encoder import normalize
    from src.text_encoder.corpus import read_lines

    lines = list(read_lines(path))
    pieces: dict[str, None] = {}  # an ordered set
    for line in lines:
        words = normalize(line).split()
        if set().union(*words) <= ALPHABET:
            pieces |= {" ".join(words[i : i + MAX_WORDS]): None for i in range(0, len(words), MAX_WORDS)}
    pieces = {piece: None for piece in pieces if piece.strip("' ")}
    if len(pieces) < 10:
        raise UserError(f"{path}: {len(pieces)} different lines in a-z; give at least 10")
    ordered = list(pieces)
    shuffled = [ordered[i] for i in addressed_rng(seed, "text").permutation(len(ordered))]
    share = -(-len(shuffled) // 20)
    return {"dev": shuffled[:share], "test": shuffled[share : 2 * share], "train": shuffled[2 * share :]}
