"""Names of tokens, beside the library that made them."""

from __future__ import annotations

import pytest

from src.looking.token_names import BYTES, names_of


def test_the_alphabet_of_bytes_is_the_library_s():
    tokenizers = pytest.importorskip("tokenizers")
    assert sorted(BYTES) == sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    decoder = tokenizers.decoders.ByteLevel()
    for text in ("maple\n", " Öl", "Ж中", "\u0000\u00ad\u00a0"):
        letters = [{byte: letter for letter, byte in BYTES.items()}[byte] for byte in text.encode()]
        assert decoder.decode(letters) == text


def test_tokens_of_a_language_model_are_decoded():
    names = names_of(["Ġ", "Ġmaple", "Ċ", "ĊĊ", "ĉ", "Ã©", "Ã", "aÃ", "<|im_end|>", "č"])
    assert names == ["␣", "␣maple", "↵", "↵↵", "⇥", "é", "\\xc3", "a\\xc3", "<|im_end|>", "\\r"]


def test_other_vocabularies_mean_what_they_say():
    assert names_of(["<blank>", "▁", "▁ma", "Ã", "Ġ"]) == ["<blank>", "␣", "␣ma", "Ã", "Ġ"]
    assert names_of(["Ã", "é"]) == ["Ã", "é"]
