"""The searches on a GPU, where there is one: the texts and scores of the CPU."""

from __future__ import annotations

import pytest
import torch

from src.decoding import CTCBeamSearch, CTCGreedySearch, Hotwords, LengthBonus
from src.lm import NGramLM, TokenNGramScorer, WordNGramScorer

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")

TOKENS = ["<blank>", "▁", "a", "b"]
LINES = ["ab a", "ab ab b", "a ab", "b a ab", "ba", "ab ba a"]


def scorers() -> list:
    words = NGramLM.estimate(LINES, order=2)
    tokens = NGramLM.estimate(["a b ▁ a", "b a ▁ a b", "a ▁ b"], order=3)
    return [
        (WordNGramScorer(words, TOKENS), 0.5),
        (TokenNGramScorer(tokens, TOKENS), 0.3),
        (Hotwords(["ab"], TOKENS), 1.0),
        (LengthBonus(4), 0.2),
    ]


@pytest.mark.parametrize("fold_sure", [None, 0.9])
@pytest.mark.parametrize("with_scorers", [False, True])
def test_a_gpu_finds_what_a_cpu_finds(fold_sure, with_scorers):
    log_probs = (3 * torch.randn(4, 40, 4, generator=torch.Generator().manual_seed(0))).log_softmax(-1)
    lengths = torch.tensor([40, 33, 1, 0])
    searches = [
        CTCBeamSearch(8, fold_sure=fold_sure, scorers=scorers() if with_scorers else ()),
        CTCGreedySearch(),
    ]
    for search in searches:
        here, there = search(log_probs, lengths), search(log_probs.cuda(), lengths.cuda())
        for ours, theirs in zip(here, there, strict=True):
            assert [h.tokens for h in ours] == [h.tokens for h in theirs]
            assert [h.score for h in ours] == pytest.approx([h.score for h in theirs], abs=1e-6)
            assert [h.token_times for h in ours] == [h.token_times for h in theirs]
