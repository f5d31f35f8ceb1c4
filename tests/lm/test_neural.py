from __future__ import annotations

import pytest
import torch
from reference.ctc_brute_force import text_probabilities

from scripts.tune_fusion import resorted
from src.decoding import CTCBeamSearch, LengthBonus, NBestRescoring
from src.lm import LSTMLanguageModel, NeuralScorer
from src.loss import NextTokenObjective
from src.utils.errors import UserError

TOKENS = ["<blank>", "▁", "a", "b"]


@pytest.fixture(scope="module")
def lm() -> LSTMLanguageModel:
    torch.manual_seed(0)
    model = LSTMLanguageModel(vocab_size=4, dim=8, num_layers=2, dropout=0.3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)  # an opinionated one
    return model.eval()


def probability(lm, tokens) -> float:
    """log P of a sentence and its end, from the whole of it at once."""
    row = torch.tensor([tokens], dtype=torch.long).view(1, -1)
    with torch.no_grad():
        log_probs = lm(row, torch.tensor([len(tokens)]))["log_probs"][0]
    return float(sum(log_probs[position, token] for position, token in enumerate([*tokens, 0])))


def test_its_probabilities_sum_to_one_and_are_causal(lm):
    one, other = torch.tensor([[1, 2, 3, 1]]), torch.tensor([[1, 2, 1, 1]])
    with torch.no_grad():
        first, second = (lm(row, torch.tensor([4]))["log_probs"] for row in (one, other))
    torch.testing.assert_close(first.exp().sum(-1), torch.ones(1, 5))
    torch.testing.assert_close(first[:, :3], second[:, :3])
    assert not torch.allclose(first[:, 3], second[:, 3])


def test_the_objective_is_the_probability_of_sentences_whatever_their_batch(lm):
    rows = [[1, 2, 3], [2], []]
    padded = torch.tensor([[1, 2, 3], [2, 3, 1], [1, 1, 1]])  # what stands in the padding does not matter
    lengths = torch.tensor([3, 1, 0])
    with torch.no_grad():
        losses = NextTokenObjective()(**lm(padded, lengths), tokens=padded, token_lengths=lengths)
    assert float(losses["loss_sum"]) == pytest.approx(-sum(probability(lm, row) for row in rows), rel=1e-5)
    assert int(losses["normalizer"]) == 7


@pytest.mark.parametrize("T", [1, 4, 6])
def test_a_beam_with_it_is_brute_force(lm, T):
    log_probs = torch.randn(1, T, 4, generator=torch.Generator().manual_seed(T)).log_softmax(-1)
    search = CTCBeamSearch(5000, scorers=[(NeuralScorer(lm, TOKENS), 0.7)])
    found = {tuple(h.tokens): h.score for h in search(log_probs, torch.tensor([T]))[0]}
    every = text_probabilities(log_probs[0].double().tolist())
    truth = {tokens: acoustic + 0.7 * probability(lm, tokens) for tokens, acoustic in every.items()}
    assert found == {tokens: pytest.approx(score, abs=1e-4) for tokens, score in truth.items()}


def test_a_small_beam_does_not_depend_on_its_batch(lm):
    log_probs = torch.randn(3, 9, 4, generator=torch.Generator().manual_seed(2)).log_softmax(-1)
    lengths = torch.tensor([9, 4, 7])
    search = CTCBeamSearch(4, scorers=[(NeuralScorer(lm, TOKENS), 0.5)])
    together = search(log_probs, lengths)
    for b, length in enumerate(lengths.tolist()):
        alone = search(log_probs[b : b + 1, :length], lengths[b : b + 1])[0]
        assert [h.tokens for h in together[b]] == [h.tokens for h in alone]
        assert [h.score for h in together[b]] == pytest.approx([h.score for h in alone], abs=1e-4)


def test_rescoring_a_whole_list_is_the_beam_with_the_scorer(lm):
    log_probs = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(3)).log_softmax(-1)
    lengths = torch.tensor([5, 3])
    scorers = [(NeuralScorer(lm, TOKENS), 0.6), (LengthBonus(4), 0.3)]
    inside = CTCBeamSearch(2000, scorers=scorers)(log_probs, lengths)
    after = NBestRescoring(CTCBeamSearch(2000), scorers)(log_probs, lengths)
    for one, other in zip(inside, after, strict=True):
        assert [h.tokens for h in one] == [h.tokens for h in other]
        assert [h.score for h in one] == pytest.approx([h.score for h in other], abs=1e-4)
        assert other[0].score == pytest.approx(sum(other[0].parts.values()))


def test_an_empty_batch_is_rescored_to_nothing(lm):
    search = NBestRescoring(CTCBeamSearch(4), [(NeuralScorer(lm, TOKENS), 0.6)])
    assert search(torch.zeros(0, 5, 4), torch.zeros(0, dtype=torch.long)) == []


def test_rescoring_needs_a_search():
    with pytest.raises(UserError, match="search=3 must be a search"):
        NBestRescoring(3, [(LengthBonus(4), 1.0)])
    inner = NBestRescoring(CTCBeamSearch(4), [(LengthBonus(4), 1.0)])
    with pytest.raises(UserError, match="a search that does not rescore itself"):
        NBestRescoring(inner, [(LengthBonus(4), 1.0)])


@pytest.mark.parametrize("weight,bonus", [(0.0, 0.0), (0.4, 0.0), (1.0, 2.0), (2.5, -1.0)])
def test_tuning_sorts_as_rescoring_does(lm, weight, bonus):
    log_probs = torch.randn(3, 6, 4, generator=torch.Generator().manual_seed(1)).log_softmax(-1)
    lengths, search, scorer = torch.tensor([6, 4, 0]), CTCBeamSearch(20), NeuralScorer(lm, TOKENS)
    once = NBestRescoring(search, [(scorer, 1.0)])(log_probs, lengths)
    expected = NBestRescoring(search, [(scorer, weight), (LengthBonus(4), bonus)])(log_probs, lengths)
    assert [[h.tokens for h in found] for found in resorted(once, weight, bonus)] == [
        [h.tokens for h in found] for found in expected
    ]
