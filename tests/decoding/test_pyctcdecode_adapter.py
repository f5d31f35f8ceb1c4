from __future__ import annotations

import importlib.util

import pytest
import torch

from src.decoding import CTCBeamSearch
from src.decoding.pyctcdecode_adapter import PyCTCDecodeSearch
from src.utils.errors import UserError

CHARACTERS = ["<blank>", "▁", "'", *"abcdefghijklmnopqrstuvwxyz"]
PIECES = ["<blank>", "▁", "▁the", "▁c", "at", "s", "a", "t"]
installed = pytest.mark.skipif(
    importlib.util.find_spec("pyctcdecode") is None, reason="pyctcdecode is not installed"
)


def spoken(tokens, vocab_size) -> torch.Tensor:
    """log_probs [1, T, V]: each token for one frame, then a blank."""
    frames = [t for token in tokens for t in (token, 0)]
    return (torch.eye(vocab_size)[frames] * 0.9 + 0.1 / vocab_size).log()[None]


@installed
@pytest.mark.parametrize("tokens", [CHARACTERS, PIECES])
def test_it_finds_what_our_own_search_finds(tokens):
    said = [2, 3, 4] if tokens is PIECES else [tokens.index(letter) for letter in "the▁cat"]
    log_probs = spoken(said, len(tokens))
    lengths = torch.tensor([log_probs.size(1)])
    theirs = PyCTCDecodeSearch(tokens, beam_size=16)(log_probs, lengths)[0][0]
    ours = CTCBeamSearch(16)(log_probs, lengths)[0][0]
    assert theirs.tokens == ours.tokens == said
    assert theirs.score == pytest.approx(ours.score, abs=0.1)


@installed
def test_no_frames_are_no_words():
    found = PyCTCDecodeSearch(CHARACTERS)(torch.zeros(1, 3, len(CHARACTERS)), torch.tensor([0]))
    assert found[0][0].tokens == []


@pytest.mark.skipif(importlib.util.find_spec("pyctcdecode") is not None, reason="pyctcdecode is installed")
def test_without_the_package_it_says_what_to_install():
    with pytest.raises(UserError, match="pip install pyctcdecode"):
        PyCTCDecodeSearch(CHARACTERS)
