"""Several scorers as one."""

from __future__ import annotations

import pytest
import torch

from src.decoding import Hotwords, LengthBonus
from src.decoding.fusion import Fusion
from src.utils.errors import UserError

TOKENS = ["<blank>", "▁", "a", "b"]
CPU = torch.device("cpu")


class NeverAsked(LengthBonus):
    """Must not be asked for anything."""

    def start(self, batch_size):
        raise AssertionError("it has no weight")


def test_it_is_the_weighted_sum_of_its_scorers_step_by_step():
    scorers = [(LengthBonus(4), 0.5), (Hotwords(["ab"], TOKENS), 2.0), (NeverAsked(4), 0.0)]
    fusion = Fusion(scorers)
    states = fusion.start(2, 3, CPU)
    alone = [scorer.start(2) for scorer, _ in scorers[:2]]
    same = torch.zeros(2, 3, dtype=torch.long)
    alone = [s.advance(state, same, same - 1) for (s, _), state in zip(scorers, alone, strict=False)]
    parents = torch.tensor([[0, 2, 1], [1, 1, 0]])
    for tokens in (torch.tensor([[2, 3, -1], [-1, 2, 1]]), torch.tensor([[3, 3, -1], [2, 3, 3]])):
        expected = 0.5 * scorers[0][0].score(alone[0]) + 2.0 * scorers[1][0].score(alone[1])
        points = fusion.points(states, vocab_size=4)
        torch.testing.assert_close(points, expected.double())
        chosen = torch.tensor([[3, 0], [1, 2]])
        expected = points.gather(2, chosen[:, None].expand(-1, 3, -1))
        assert torch.equal(fusion.points(states, 4, chosen), expected)
        states = fusion.advance(states, parents, tokens)
        alone = [s.advance(state, parents, tokens) for (s, _), state in zip(scorers, alone, strict=False)]
    expected = 0.5 * scorers[0][0].finish(alone[0]) + 2.0 * scorers[1][0].finish(alone[1])
    torch.testing.assert_close(fusion.finish(states), expected.double())
    assert fusion.finish(states).abs().sum() > 0


def test_nothing_adds_nothing():
    for fusion in (Fusion([]), Fusion([(NeverAsked(4), 0.0)])):
        states = fusion.start(2, 3, CPU)
        assert fusion.points(states, 4) is None and fusion.finish(states) == 0
        assert fusion.advance(states, torch.zeros(2, 3), torch.zeros(2, 3)) == []


def test_what_is_no_scorer_or_of_other_tokens_is_named():
    with pytest.raises(UserError, match="scorers=.* must be a list of pairs"):
        Fusion([LengthBonus(4)])
    fusion = Fusion([(LengthBonus(5), 1.0)])
    with pytest.raises(UserError, match="LengthBonus's vocabulary=5 must be the model's, 4"):
        fusion.points(fusion.start(1, 1, CPU), 4)
