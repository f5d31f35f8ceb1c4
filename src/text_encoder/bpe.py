"""Byte-pair encoding (Sennrich et al. 2016) with SentencePiece.

The unknown piece has id 0, which is the blank; there is no begin, end or padding piece. Training always
learns a-z and the apostrophe, so every English text can be written.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable
from pathlib import Path

import sentencepiece

from src.text_encoder.base import BLANK, TextEncoder
from src.utils.errors import TextError, UserError


class BPETextEncoder(TextEncoder):
    """A SentencePiece model made by ``scripts/train_tokenizer.py`` (or ``train_bpe``).

    Raises ``UserError`` where the file is missing, damaged, or of another layout (id 0: the unknown piece).
    """

    file_name = "tokenizer.model"

    def __init__(self, model_file: str | Path) -> None:
        try:
            self._model = Path(model_file).read_bytes()
        except OSError as error:
            make = f"python scripts/train_tokenizer.py TEXTS --vocab-size 256 --out {Path(model_file).parent}"
            raise UserError(f"{model_file}: cannot be read ({error.strerror}); make one: {make}") from None
        try:
            if not self._model:
                raise RuntimeError
            self._pieces = sentencepiece.SentencePieceProcessor(model_proto=self._model)
        except RuntimeError:
            raise UserError(
                f"{model_file}: not a SentencePiece model, or cut short; train or fetch it again"
            ) from None
        pieces = self._pieces
        if pieces.unk_id() != 0 or max(pieces.bos_id(), pieces.eos_id(), pieces.pad_id()) >= 0:
            message = "needs unk_id=0 and no begin, end or padding; make one with scripts/train_tokenizer.py"
            raise UserError(f"{model_file}: {message}")
        self.tokens = [BLANK, *(pieces.id_to_piece(i) for i in range(1, pieces.vocab_size()))]

    def encode(self, text: str) -> list[int]:
        """Token ids of normalised text; ``TextError`` names the characters that have no token."""
        tokens = self._pieces.encode(text)
        if 0 in tokens:
            known = {" ", *"".join(self.tokens[1:])}
            strange = "".join(sorted(set(text) - known))
            message = f"{text[:60]!r}: no token for {strange[:20]!r}; normalise or correct the transcript"
            raise TextError(message)
        return tokens

    def save(self, directory: str | Path) -> str:
        """Writes ``tokenizer.model``, byte for byte what was read; returns that name."""
        Path(directory).mkdir(parents=True, exist_ok=True)
        (Path(directory) / self.file_name).write_bytes(self._model)
        return self.file_name

    @classmethod
    def load(cls, directory: str | Path) -> BPETextEncoder:
        """Reads ``tokenizer.model``; ``UserError`` where it is missing or damaged."""
        return cls(Path(directory) / cls.file_name)


def train_bpe(lines: Iterable[str], vocab_size: int) -> bytes:
    """A SentencePiece BPE model (its file's bytes) of normalised lines; same lines, same bytes.

    ``vocab_size`` counts the blank. ``UserError`` where it does not fit the text, or there is no text.

    >>> model = train_bpe(["the cat sat on the mat"] * 3, vocab_size=32)
    >>> model == train_bpe(["the cat sat on the mat"] * 3, vocab_size=32)
    True
    """
    lines = [line for line in lines if line]
    if vocab_size < 2:
        raise UserError(
            f"vocabulary of {vocab_size}: too small; 128 to 500 suit an hour to 100 hours of speech"
        )
    if not lines:
        raise UserError("no text to learn a tokenizer from: every line is empty after normalisation")
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines),
            model_writer=model,
            model_type="bpe",
            vocab_size=vocab_size,
            unk_id=0,
            bos_id=-1,
            eos_id=-1,
            pad_id=-1,
            character_coverage=1.0,
            required_chars="abcdefghijklmnopqrstuvwxyz'",
            normalization_rule_name="identity",
            split_by_unicode_script=False,  # else "'s" could not join the word before it
            max_sentence_length=1 << 30,  # else longer lines are left out without a word
            num_threads=1,  # the number is written into the model
            minloglevel=3,
        )
    except RuntimeError as error:
        if too_high := re.search(r"value <= (\d+)", str(error)):
            remedy = f"too large for this text; give --vocab-size {too_high[1]} or less, or add text"
        elif too_low := re.search(r"required_chars\. \d+ vs (\d+)", str(error)):
            remedy = f"too small for the letters of this text: at least {too_low[1]}"
        else:
            remedy = f"SentencePiece cannot learn it: {error}"
        raise UserError(f"vocabulary of {vocab_size}: {remedy}") from None
    return model.getvalue()
