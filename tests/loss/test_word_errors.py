from __future__ import annotations

import math
from itertools import product

import pytest
import torch

from src.loss import ParaformerObjective, WordErrorObjective
from src.utils.errors import UserError

TOKENS = ["<blank>", "▁a", "▁b", "c"]


def test_the_risk_is_the_one_worked_by_hand():
    """One slot of two words: 'a' (right) with 0.7, 'b' (one error) with 0.3; the mean error of both is a half."""
    log_probs = torch.tensor([[[0.0, 0.7, 0.3, 0.0]]]).log()
    objective = WordErrorObjective(TOKENS, samples=60)
    torch.manual_seed(0)
    risk = objective.risk(log_probs, torch.tensor([[1]]), torch.tensor([1]), ["a"])
    assert risk.item() == pytest.approx(0.7 * (0 - 0.5) + 0.3 * (1 - 0.5))


def test_words_are_counted_not_tokens():
    objective = WordErrorObjective(TOKENS)
    drawn = [[[1, 3, 2], [1, 2, 0]], [[2, 1, 1], [0, 0, 0]]]  # "ac b", "a b"; "b", "" of one slot
    assert objective._errors(drawn, [3, 1], ["ac b", "a"]).tolist() == [[0, 1], [1, 1]]


def test_it_makes_the_better_text_more_probable():
    logits = torch.zeros(1, 2, 4, requires_grad=True)
    objective = WordErrorObjective(TOKENS, samples=200)
    torch.manual_seed(0)
    objective.risk(logits.log_softmax(-1), torch.tensor([[1, 2]]), torch.tensor([2]), ["a b"]).backward()
    assert logits.grad[0].argmin(1).tolist() == [1, 2]  # the right token of each slot is pushed up most


def test_padding_takes_no_part():
    log_probs = torch.randn(1, 4, 4, generator=torch.Generator().manual_seed(1)).log_softmax(-1)
    log_probs.requires_grad_()
    torch.manual_seed(3)
    WordErrorObjective(TOKENS, 30).risk(
        log_probs, torch.zeros(1, 4).long(), torch.tensor([2]), ["a b"]
    ).backward()
    assert log_probs.grad[0, :2].any() and not log_probs.grad[0, 2:].any()


def test_parts_sum_to_the_loss_and_evaluation_is_as_before():
    outputs = {
        "slot_log_probs": torch.randn(2, 3, 4).log_softmax(-1),
        "first_tokens": torch.ones(2, 3, dtype=torch.long),
        "encoded_lengths": torch.tensor([9, 9]),
        "tokens": torch.tensor([[1, 2, 3], [2, 0, 0]]),
        "token_lengths": torch.tensor([3, 1]),
        "text": ["a bc", "b"],
    }
    plain = ParaformerObjective(ctc_weight=0)
    objective = WordErrorObjective(TOKENS, samples=4, interpolation=0.1, objective=plain)
    found = objective.train()(**outputs)
    assert math.isclose(sum(map(float, found["parts"].values())), float(found["loss_sum"]), rel_tol=1e-5)
    assert objective.eval()(**outputs)["loss_sum"] == plain.eval()(**outputs)["loss_sum"]


@pytest.mark.parametrize(
    "settings",
    [
        {"samples": 1},
        {"samples": 2.5},
        {"samples": True},
        {"interpolation": -0.1},
        {"interpolation": math.inf},
        {"interpolation": "much"},
    ],
)
def test_one_sample_is_no_choice_and_other_odd_numbers(settings):
    ((name, value),) = settings.items()
    with pytest.raises(UserError, match=f"WordErrorObjective: {name}={value} must be a"):
        WordErrorObjective(TOKENS, **settings)


def test_texts_are_drawn_as_a_search_writes_them_without_token_0():
    """'a' 0.3, 'b' 0.1, token 0 0.6, which no search writes: 0.75 and 0.25 are left."""
    log_probs = torch.tensor([[[0.6, 0.3, 0.1, 0.0]]]).log()
    torch.manual_seed(0)
    risk = WordErrorObjective(TOKENS, samples=60).risk(
        log_probs, torch.tensor([[1]]), torch.tensor([1]), ["a"]
    )
    assert risk.item() == pytest.approx(0.75 * (0 - 0.5) + 0.25 * (1 - 0.5))


def outputs(**changed) -> dict:
    usual = {
        "slot_log_probs": torch.randn(1, 2, 4).log_softmax(-1),
        "first_tokens": torch.ones(1, 2, dtype=torch.long),
        "encoded_lengths": torch.tensor([9]),
        "tokens": torch.tensor([[1, 2]]),
        "token_lengths": torch.tensor([2]),
        "text": ["a b"],
    }
    return usual | changed


def test_word_errors_of_what_is_no_number_are_a_bad_step_and_no_crash():
    """The trainer drops a step whose loss is NaN and names the clips; multinomial throws before it can."""
    objective = WordErrorObjective(TOKENS, objective=ParaformerObjective(0)).train()
    assert not objective(**outputs(slot_log_probs=torch.full((1, 2, 4), math.nan)))["loss_sum"].isfinite()


def test_word_errors_of_a_clip_without_a_frame_count_nothing():
    objective = WordErrorObjective(TOKENS, samples=8, objective=ParaformerObjective(0)).train()
    torch.manual_seed(0)
    found = objective(**outputs(encoded_lengths=torch.tensor([0])))
    assert found["too_short"].all() and found["normalizer"] == 0 and found["loss_sum"] == 0


def test_each_slot_is_drawn_from_its_own_chances():
    """Of many clips, against all pairs of texts by their probabilities."""
    chances, clips = [[0.9, 0.1], [0.3, 0.7]], 4000  # 'a' and 'b' of each slot, where 'a b' is right
    texts = list(product((0, 1), repeat=2))
    probability = [chances[0][one] * chances[1][two] for one, two in texts]
    errors = [(one != 0) + (two != 1) for one, two in texts]
    expected = 0.0
    for i, j in product(range(4), repeat=2):
        share, mean = probability[i] + probability[j], (errors[i] + errors[j]) / 2
        risk = sum(probability[k] / share * (errors[k] - mean) for k in (i, j)) if i != j else 0.0
        expected += probability[i] * probability[j] * risk
    log_probs = torch.tensor([[0.0, *row, 0.0] for row in chances]).log().expand(clips, 2, 4)
    torch.manual_seed(0)
    lengths = torch.full((clips,), 2)
    risk = WordErrorObjective(TOKENS, samples=2).risk(
        log_probs, torch.zeros(clips, 2).long(), lengths, ["a b"] * clips
    )
    assert risk.item() / clips == pytest.approx(expected, rel=0.05)
