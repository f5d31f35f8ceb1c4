"""Tokens as people read them: spaces and line breaks visible, byte-level BPE decoded."""

from __future__ import annotations

from collections.abc import Sequence

from src.text_encoder import WORD_START

SPACE_OF_BYTES = "Ġ"  # a space in the alphabet of byte-level BPE
VISIBLE = {" ": "␣", "\n": "↵", "\t": "⇥"}
PRINTED = (*range(33, 127), *range(161, 173), *range(174, 256))  # bytes that stand for themselves
# The others are the letters from U+0100 on (GPT-2's bytes_to_unicode).
BYTES = {chr(byte): byte for byte in PRINTED} | {
    chr(256 + i): byte for i, byte in enumerate(sorted({*range(256)} - {*PRINTED}))
}


def names_of(tokens: Sequence[str]) -> list[str]:
    r"""A vocabulary's tokens -> names to be shown.

    Bytes that are no character alone are written as in Python.

    >>> names_of(["▁six", "▁", "e"])
    ['␣six', '␣', 'e']
    >>> names_of(["Ġsix", "Ċ", "Ã©", "Ð", "<|im_end|>"])
    ['␣six', '↵', 'é', '\\xd0', '<|im_end|>']
    """
    of_bytes = SPACE_OF_BYTES in {token[:1] for token in tokens} and WORD_START not in tokens
    return [_visible(_decoded(token) if of_bytes else token.replace(WORD_START, " ")) for token in tokens]


def _decoded(token: str) -> str:
    if not all(character in BYTES for character in token):  # an added token, written as it is
        return token
    return bytes(BYTES[character] for character in token).decode("utf-8", "backslashreplace")


def _visible(text: str) -> str:
    return "".join(
        VISIBLE.get(character)
        or (character if character.isprintable() else character.encode("unicode_escape").decode())
        for character in text
    )
