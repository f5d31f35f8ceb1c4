from __future__ import annotations

import re

import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from reference.ctc_brute_force import text_probabilities

from src.decoding import CTCBeamSearch, Hotwords
from src.utils.errors import UserError

CHARACTERS = ["<blank>", "▁", "a", "b"]
PIECES = ["<blank>", "▁a", "▁", "b", "ab", "▁ba", "a▁b"]


def occurrences(text: str, phrases) -> int:
    """How often the phrases stand in the text as whole words, overlapping ones too."""
    text = f" {' '.join(text.split())} "
    return sum(len(re.findall(f"(?= {re.escape(phrase)} )", text)) for phrase in set(phrases))


def points_of(hotwords: Hotwords, tokens) -> float:
    state, total = hotwords.start(1), 0.0
    for token in tokens:
        total += float(hotwords.score(state)[0, 0, token])
        state = hotwords.advance(state, torch.tensor([[0]]), torch.tensor([[token]]))
    return total + float(hotwords.finish(state))


phrase = st.lists(st.text("ab", min_size=1, max_size=3), min_size=1, max_size=3).map(" ".join)


@given(st.lists(phrase, min_size=1, max_size=4), st.lists(st.integers(1, 6), max_size=12))
def test_a_text_gets_a_point_for_every_phrase_in_it(phrases, tokens):
    """Whatever its tokens, and whatever began like a phrase and was none."""
    text = "".join(PIECES[token] for token in tokens).replace("▁", " ")
    assert points_of(Hotwords(phrases, PIECES), tokens) == pytest.approx(occurrences(text, phrases), abs=1e-5)


@pytest.mark.parametrize("pieces,T", [(CHARACTERS, 6), (PIECES, 5)])
def test_a_beam_with_hotwords_is_brute_force(pieces, T):
    log_probs = torch.randn(1, T, len(pieces), generator=torch.Generator().manual_seed(1)).log_softmax(-1)
    phrases = ["ab", "a b", "b"]
    search = CTCBeamSearch(6000, scorers=[(Hotwords(phrases, pieces), 1.5)])
    found = {tuple(h.tokens): h.score for h in search(log_probs, torch.tensor([T]))[0]}
    truth = {}
    for tokens, acoustic in text_probabilities(log_probs[0].double().tolist()).items():
        text = "".join(pieces[token] for token in tokens).replace("▁", " ")
        truth[tokens] = acoustic + 1.5 * occurrences(text, phrases)
    assert found == {tokens: pytest.approx(score, abs=1e-5) for tokens, score in truth.items()}


def test_a_hotword_wins_over_what_sounds_alike():
    log_probs = torch.tensor([[[0.1, 0.1, 0.1, 0.7], [0.1, 0.1, 0.45, 0.35]]]).log()
    lengths = torch.tensor([2])
    assert CTCBeamSearch(8)(log_probs, lengths)[0][0].tokens == [3]
    boosted = CTCBeamSearch(8, scorers=[(Hotwords(["ba"], CHARACTERS), 2.0)])
    assert boosted(log_probs, lengths)[0][0].tokens == [3, 2]


@pytest.mark.parametrize(
    "phrases,message",
    [
        ([], "must be a list of texts"),
        ("ab", "must be a list of texts"),
        (3, "must be a list of texts"),
        (["a", 3], "the phrase 3 is no text; put it in quotes"),
        (yaml.safe_load("[on, yes]"), "the phrase True is no text; put it in quotes"),
        (["a", "açb"], "the phrase 'açb' has 'ç'"),
        ([" "], "the phrase ' ' is empty"),
    ],
)
def test_phrases_that_cannot_be_said_are_refused(phrases, message):
    with pytest.raises(UserError, match=message):
        Hotwords(phrases, CHARACTERS)
