"""Text: one normaliser, and encoders (characters, BPE, a language model's tokens) behind one interface."""

from __future__ import annotations

from pathlib import Path

from src.text_encoder.base import WORD_START, TextEncoder
from src.text_encoder.bpe import BPETextEncoder, train_bpe
from src.text_encoder.characters import CharTextEncoder
from src.text_encoder.chat import ChatTextEncoder
from src.text_encoder.normalizer import normalize
from src.utils.errors import UserError

__all__ = [
    "WORD_START",
    "BPETextEncoder",
    "CharTextEncoder",
    "ChatTextEncoder",
    "TextEncoder",
    "load_text_encoder",
    "normalize",
    "train_bpe",
]


def load_text_encoder(directory: str | Path) -> TextEncoder:
    """The encoder whose file lies in a checkpoint directory: ``tokenizer.model`` (BPE), ``tokenizer.txt``
    (characters) or ``tokenizer.json`` (a language model's).

    Raises ``UserError`` where there is none, there are several, or the file is damaged.
    """
    kinds = (BPETextEncoder, CharTextEncoder, ChatTextEncoder)
    present = [kind for kind in kinds if (Path(directory) / kind.file_name).is_file()]
    if len(present) == 1:
        return present[0].load(directory)
    if present:
        names = " and ".join(kind.file_name for kind in present)
        raise UserError(
            f"{directory}: holds both {names}; remove the one that the model was not trained with"
        )
    names = ", ".join(kind.file_name for kind in kinds)
    raise UserError(f"{directory}: no tokenizer ({names} are missing); give a checkpoint directory")
