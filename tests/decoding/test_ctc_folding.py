"""Frames that are folded: what comes out is the search in posteriors where their other tokens are impossible."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from src.decoding import CTCBeamSearch, Hotwords, LengthBonus
from src.lm import LSTMLanguageModel, NeuralScorer, NGramLM, TokenNGramScorer, WordNGramScorer

LETTERS = ["<blank>", "▁", "a", "b"]
PIECES = ["<blank>", "▁", "▁a", "b", "ab"]
LINES = ["ab a", "ab ab b", "a ab", "b a ab", "ba", "ab ba a", "a", "ab a b", "abba", "aab ab"]


def log_probs_of(seed: int, B: int, T: int, V: int, share: float = 0.5, sharpness: float = 1.5) -> torch.Tensor:
    """Random posteriors, in which about this share of the frames is sure of a random token (the blank as often as
    all others together) with 95 to 100 %."""
    generator = torch.Generator().manual_seed(seed)
    probs = (sharpness * torch.randn(B, T, V, generator=generator, dtype=torch.float64)).softmax(-1)
    probs = 0.9 * probs / probs.amax(-1, keepdim=True).clamp_min(0.9)  # nothing else is that sure
    token = torch.randint(1, V, (B, T), generator=generator)
    token = torch.where(torch.rand(B, T, generator=generator) < 0.5, 0, token)
    height = 0.95 + 0.05 * torch.rand(B, T, 1, generator=generator, dtype=torch.float64)
    sure = (1 - height) / (V - 1) * torch.ones(V).double()
    sure = sure.scatter(2, token.unsqueeze(2), height)
    is_sure = torch.rand(B, T, 1, generator=generator) < share
    return torch.where(is_sure, sure, probs / probs.sum(-1, keepdim=True)).log()


def certain(log_probs: torch.Tensor, threshold: float) -> torch.Tensor:
    """The same posteriors, where a token that is at least that probable is the only possible one."""
    value, token = log_probs.max(-1, keepdim=True)
    others = torch.arange(log_probs.size(-1)) != token
    return log_probs.masked_fill((value >= math.log(threshold)) & others, float("-inf"))


def assert_same(ours, theirs):
    for found, expected in zip(ours, theirs, strict=True):
        assert [h.tokens for h in found] == [h.tokens for h in expected]
        assert [h.score for h in found] == pytest.approx([h.score for h in expected], abs=1e-6)
        for one, other in zip(found, expected, strict=True):
            assert one.parts == pytest.approx(other.parts, abs=1e-6)
            assert one.token_times == other.token_times
            assert one.token_log_probs == pytest.approx(other.token_log_probs, abs=1e-6)


def all_scorers(tokens):
    V = len(tokens)
    words = NGramLM.estimate(LINES, order=3)
    torch.manual_seed(0)
    lstm = LSTMLanguageModel(vocab_size=V, dim=8, num_layers=1, dropout=0.0)
    spelled = NGramLM.estimate([" ".join(tokens[1:]), " ".join(reversed(tokens[1:]))] * 3, order=3)
    return {
        "none": [],
        "words": [(WordNGramScorer(words, tokens), 0.5)],
        "tokens": [(TokenNGramScorer(spelled, tokens), 0.7)],
        "hotwords": [(Hotwords(["ab a", "b"], tokens), 1.0)],
        "lstm": [(NeuralScorer(lstm, tokens), 0.6)],
        "several": [
            (WordNGramScorer(words, tokens), 0.5),
            (Hotwords(["ab"], tokens), 1.0),
            (LengthBonus(V), 0.3),
            (LengthBonus(V), 0.0),
        ],
    }


SCORERS = {(name, kind): found for name, tokens in (("letters", LETTERS), ("pieces", PIECES)) for kind, found in all_scorers(tokens).items()}


@given(seed=st.integers(0, 10_000), beam_size=st.integers(1, 9), case=st.sampled_from(sorted(SCORERS)), share=st.floats(0.2, 1.0))
@settings(max_examples=150, deadline=None)
def test_folding_is_the_search_in_certain_frames(seed, beam_size, case, share):
    """Doubled letters, runs at both ends, sure blanks in them, and runs of more tokens than are added at once."""
    V = len(LETTERS if case[0] == "letters" else PIECES)
    log_probs, lengths = log_probs_of(seed, 3, 20, V, share), torch.tensor([20, 13, 0])
    folding = CTCBeamSearch(beam_size, scorers=SCORERS[case], fold_sure=0.94)(log_probs, lengths)
    assert_same(folding, CTCBeamSearch(beam_size, scorers=SCORERS[case])(certain(log_probs, 0.94), lengths))
