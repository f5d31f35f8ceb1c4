"""Characters as tokens: nothing to train, 29 tokens in English, and every transcript can be written."""

from __future__ import annotations

from pathlib import Path

from src.text_encoder.base import BLANK, WORD_START, TextEncoder
from src.utils.errors import TextError, UserError

ENGLISH = " 'abcdefghijklmnopqrstuvwxyz"


class CharTextEncoder(TextEncoder):
    """Blank is 0; then the characters of ``alphabet`` in their order.

    >>> encoder = CharTextEncoder()
    >>> encoder.vocab_size, encoder.encode("it's a"), encoder.decode([11, 22, 2, 21, 1, 3])
    (29, [11, 22, 2, 21, 1, 3], "it's a")
    """

    file_name = "tokenizer.txt"

    def __init__(self, alphabet: str = ENGLISH) -> None:
        if " " not in alphabet or len(set(alphabet)) != len(alphabet):
            raise UserError(f"alphabet {alphabet!r}: must hold the space and each character once")
        self.tokens = [BLANK, *alphabet.replace(" ", WORD_START)]
        self._ids = {character: i for i, character in enumerate(alphabet, start=1)}

    def encode(self, text: str) -> list[int]:
        """Token ids of normalised text; ``TextError`` names the characters that have no token."""
        try:
            return [self._ids[character] for character in text]
        except KeyError:
            strange = "".join(sorted(set(text) - set(self._ids)))
            message = f"{text[:60]!r}: no token for {strange[:20]!r}; normalise or correct the transcript"
            raise TextError(message) from None

    def save(self, directory: str | Path) -> str:
        """Writes ``tokenizer.txt``: one token a line, UTF-8, the space as "▁"; returns that name."""
        Path(directory).mkdir(parents=True, exist_ok=True)
        (Path(directory) / self.file_name).write_bytes(
            "".join(f"{token}\n" for token in self.tokens).encode()
        )
        return self.file_name

    @classmethod
    def load(cls, directory: str | Path) -> CharTextEncoder:
        """Reads ``tokenizer.txt``; ``UserError`` where it is missing or damaged."""
        path = Path(directory) / cls.file_name
        try:
            tokens = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{path}: cannot be read ({error}); fetch the checkpoint again") from None
        if tokens[:1] != [BLANK] or any(len(token) != 1 for token in tokens[1:]):
            raise UserError(
                f"{path}: not a list of {BLANK} and single characters; fetch the checkpoint again"
            )
        try:
            return cls("".join(tokens[1:]).replace(WORD_START, " "))
        except UserError as error:
            raise UserError(f"{path}: {error}") from None
