"""What text encoders share. Of characters and BPE: token 0 is blank, "▁" stands for the space, decoding is joining."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar

BLANK = "<blank>"
WORD_START = "▁"


class TextEncoder(ABC):
    """Turns normalised text into token ids and back; ``decode(encode(text)) == text``.

    ``tokens[i]`` is the printable form of token ``i``; ``tokens[0]`` is the blank, which no text contains.
    """

    file_name: ClassVar[str]  # what `save` writes into a checkpoint directory
    tokens: list[str]

    @property
    def vocab_size(self) -> int:
        """Number of tokens, the blank included."""
        return len(self.tokens)

    def for_model(self) -> dict[str, Any]:
        """What a model is told of its tokenizer when it is built, as a checkpoint's config keeps it."""
        return {"vocab_size": self.vocab_size}

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """Token ids of normalised text; ``TextError`` where a character has no token."""

    def decode(self, tokens: Iterable[int]) -> str:
        """Text of token ids (not CTC frames: repeats are kept); blanks write nothing, spaces never double."""
        return " ".join(
            "".join(self.tokens[int(t)] for t in tokens if int(t)).replace(WORD_START, " ").split()
        )

    @abstractmethod
    def save(self, directory: str | Path) -> str:
        """Writes the tokenizer's file into ``directory`` (made if missing) and returns its name."""

    @classmethod
    @abstractmethod
    def load(cls, directory: str | Path) -> TextEncoder:
        """Reads what ``save`` wrote; ``UserError`` where it is missing or damaged."""
