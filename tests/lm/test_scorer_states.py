"""What a beam search may rely on: a hypothesis without a new token keeps its state, whichever way it is computed."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from src.decoding import Hotwords, LengthBonus
from src.lm import LSTMLanguageModel, NeuralScorer, NGramLM, TokenNGramScorer, WordNGramScorer

TOKENS = ["<blank>", "▁", "a", "b"]
LINES = ["ab a", "ab ab b", "a ab", "b a ab", "ba", "ab ba a", "a", "ab a b"]
SCORERS = {
    "words": lambda: WordNGramScorer(NGramLM.estimate(LINES, order=3), TOKENS),
    "tokens": lambda: TokenNGramScorer(NGramLM.estimate([" ".join("▁abab▁")] * 3, order=3), TOKENS),
    "hotwords": lambda: Hotwords(["ab a"], TOKENS),
    "length": lambda: LengthBonus(4),
    "lstm": lambda: NeuralScorer(LSTMLanguageModel(vocab_size=4, dim=8, num_layers=2, dropout=0.0), TOKENS),
}


@pytest.mark.parametrize("name", SCORERS)
def test_a_hypothesis_without_a_new_token_keeps_its_points(name, monkeypatch):
    """On a GPU, and in compiled code, all hypotheses are computed anew, not only those that grew."""
    scorer = SCORERS[name]()
    generator = torch.Generator().manual_seed(0)
    found: list[Tensor] = []
    for is_cheap in (True, False):
        for module in ("decoding.scorer", "lm.token_scorer"):
            monkeypatch.setattr(f"src.{module}.is_cheap_to_ask", lambda device, answer=is_cheap: answer)
        state = scorer.advance(scorer.start(2), torch.zeros(2, 6, dtype=torch.long), torch.full((2, 6), -1))
        generator.manual_seed(0)
        for _ in range(8):
            parents = torch.randint(0, 6, (2, 6), generator=generator)
            tokens = torch.randint(-1, 4, (2, 6), generator=generator)
            state = scorer.advance(state, parents, tokens.where(tokens != 0, -1))
            found += [scorer.score(state), scorer.finish(state)]
        kept = scorer.advance(state, torch.arange(6).expand(2, 6), torch.full((2, 6), -1))
        assert torch.equal(scorer.score(kept), scorer.score(state))
    half = len(found) // 2
    for ours, theirs in zip(found[:half], found[half:], strict=True):
        assert torch.allclose(ours, theirs, atol=1e-6)
