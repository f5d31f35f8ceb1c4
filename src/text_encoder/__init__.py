"""Text: one normaliser, and two encoders (characters, BPE) behind one interface."""

from __future__ import annotations

from pathlib import Path

from src.text_encoder.base import WORD_START, TextEncoder
from src.text_encoder.bpe import BPETextEncoder, train_bpe
from src.text_encoder.characters import CharTextEncoder
from src.text_encoder.normalizer import normalize
from src.utils.errors import UserError

__all__ = [
    "WORD_START",
    "BPETextEncoder",
    "CharTextEncoder",
    "TextEncoder",
    "load_text_encoder",
    "normalize",
    "train_bpe",
]


def load_text_encoder(directory: str | Path) -> TextEncoder:
    """The encoder whose file lies in a checkpoint directory: ``tokenizer.model`` (BPE) or ``tokenizer.txt``.

    Raises ``UserError`` where there is neither, there are both, or the file is damaged.
    """
    kinds = (BPETextEncoder, CharTextEncoder)
    present = [kind for kind in kinds if (Path(directory) / kind.file_name).is_file()]
    if len(present) == 1:
        return present[0].load(directory)
    names = " and ".join(kind.file_name for kind in kinds)
    if present:
        raise UserError(
            f"{directory}: holds both {names}; remove the one that the model was not trained with"
        )
    raise UserError(f"{directory}: no tokenizer ({names} are missing); give a checkpoint directory")
