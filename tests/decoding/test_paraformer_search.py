from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product

import pytest
import torch
import torch.nn.functional as F

from src.decoding import LengthBonus, ParaformerBeamSearch, ParaformerGreedySearch, ParaformerSamplingSearch
from src.decoding.nucleus import nucleus_of
from src.lm import NGramLM, TokenNGramScorer
from src.model.slots.slots import Slots
from src.utils.errors import UserError

TOKENS = ["<blank>", "▁", "a", "b"]


@dataclass
class Written:
    """A model that has heard these slots and frames."""

    log_probs: torch.Tensor
    lengths: torch.Tensor
    frames: torch.Tensor

    def write(self, encoded, encoded_lengths):
        B, U, _ = self.log_probs.shape
        times = torch.arange(U).expand(B, U)
        return self.log_probs, Slots(torch.zeros(B, U, 1), self.lengths, torch.zeros(B, U, 1), times)

    def ctc_log_probs(self, encoded):
        return self.frames


def heard(lengths: list[int], V: int = 4, seed: int = 0, T: int = 6) -> tuple:
    generator = torch.Generator().manual_seed(seed)
    B, U = len(lengths), max(lengths)
    slots = (2 * torch.randn(B, U, V, generator=generator)).log_softmax(-1)
    frames = (2 * torch.randn(B, T, V, generator=generator)).log_softmax(-1)
    return Written(slots, torch.tensor(lengths), frames), torch.zeros(B, T, 1), torch.full((B,), T)


def test_greedy_takes_the_best_token_of_each_slot():
    inputs = heard([3, 1])
    for row, (found,) in enumerate(ParaformerGreedySearch()(*inputs)):
        count = int(inputs[0].lengths[row])
        best = inputs[0].log_probs[row, :count, 1:].max(-1)
        assert found.tokens == (best.indices + 1).tolist() and found.token_times == [*range(count)]
        assert found.score == pytest.approx(best.values.sum().item()) and len(found.token_log_probs) == count


@pytest.mark.parametrize("w", [0.0, 0.4])
def test_an_unpruned_beam_is_brute_force(w):
    inputs = heard([3, 2, 0])
    lm = NGramLM.estimate(["a b a", "b b a", "a ▁ b"], order=2)
    search = ParaformerBeamSearch(100, w, [(TokenNGramScorer(lm, TOKENS), 0.7), (LengthBonus(4), 0.5)])
    for row, found in enumerate(search(*inputs)):
        count = int(inputs[0].lengths[row])
        truth = {}
        for text in product((1, 2, 3), repeat=count):
            slots = sum(inputs[0].log_probs[row, u, t].item() for u, t in enumerate(text))
            target, sizes = torch.tensor(text, dtype=torch.long), (torch.tensor(6), torch.tensor(count))
            ctc = -F.ctc_loss(inputs[0].frames[row].double(), target, *sizes, reduction="sum").item()
            acoustic = (1 - w) * slots + (w * ctc if w else 0.0)
            added = 0.7 * math.log(10) * lm.score(" ".join(TOKENS[t] for t in text)) + 0.5 * count
            truth[text] = acoustic, added
        assert {tuple(h.tokens) for h in found} == set(truth) and len(found) == len(truth)
        assert [h.score for h in found] == sorted((h.score for h in found), reverse=True)
        for h in found:
            acoustic, added = truth[tuple(h.tokens)]
            assert h.parts == pytest.approx({"acoustic": acoustic, "scorers": added}, abs=1e-5)
            assert h.score == pytest.approx(acoustic + added, abs=1e-5)


def test_a_beam_of_one_is_greedy():
    for seed in range(5):
        inputs = heard([4, 2, 3], seed=seed)
        greedy, beam = ParaformerGreedySearch()(*inputs), ParaformerBeamSearch(1)(*inputs)
        assert [h[0].tokens for h in beam] == [h[0].tokens for h in greedy]
        assert [h[0].token_times for h in beam] == [h[0].token_times for h in greedy]


def test_an_utterance_is_the_same_alone_and_in_a_batch():
    model, encoded, lengths = heard([4, 2])
    alone = Written(model.log_probs[1:, :2], model.lengths[1:], model.frames[1:])
    for search in (
        ParaformerGreedySearch(),
        ParaformerBeamSearch(4, 0.3),
        ParaformerSamplingSearch(10, top_p=0.95),
    ):
        one, two = search(model, encoded, lengths)[1], search(alone, encoded[1:], lengths[1:])[0]
        assert [h.tokens for h in one] == [h.tokens for h in two]
        assert [h.score for h in one] == pytest.approx([h.score for h in two])


@pytest.mark.parametrize(
    "search", [ParaformerGreedySearch(), ParaformerBeamSearch(4, 0.3), ParaformerSamplingSearch(10)]
)
def test_where_a_slot_has_no_possible_token_there_is_no_text(search):
    inputs = heard([2, 3])
    whole = search(*inputs)
    inputs[0].log_probs[1, 2] = math.nan
    inputs[0].frames[1] = math.nan
    found = search(*inputs)
    assert [(h.tokens, h.score, h.parts) for h in found[1]] == [([], -math.inf, {"acoustic": -math.inf})]
    assert found[0] == whole[0]


def test_texts_are_drawn_from_the_nucleus_as_often_as_they_are_probable():
    row = torch.tensor([[0.0, 0.5, 0.3, 0.2], [0.0, 0.1, 0.1, 0.8]]).log()
    drawn = ParaformerSamplingSearch(20_000, top_p=0.75)._drawn(row)
    shares = {text: drawn.count([*text]) / len(drawn) for text in {tuple(text) for text in drawn}}
    assert set(shares) == {(1, 3), (2, 3)}  # 0.5 + 0.3 reach 0.75; 0.8 alone does
    assert shares[1, 3] == pytest.approx(0.625, abs=0.02)


def test_samples_are_reproducible_different_and_sorted():
    inputs = heard([4, 3])
    search = ParaformerSamplingSearch(8, temperature=1.5, top_p=1.0)
    one, two = search(*inputs), search(*inputs)
    for found, again in zip(one, two, strict=True):
        assert [h.tokens for h in found] == [h.tokens for h in again]
        assert 1 < len({tuple(h.tokens) for h in found}) == len(found) <= 8
        assert [h.score for h in found] == sorted((h.score for h in found), reverse=True)
    other = ParaformerSamplingSearch(8, temperature=1.5, top_p=1.0, seed=1)(*inputs)
    assert [h.tokens for h in other[0]] != [h.tokens for h in one[0]]


def test_a_cold_nucleus_is_the_best_token():
    log_probs = torch.randn(5, 9, generator=torch.Generator().manual_seed(0)).log_softmax(-1)
    assert nucleus_of(log_probs, 1.0, 1e-6).argmax(-1).tolist() == log_probs.argmax(-1).tolist()
    assert nucleus_of(log_probs, 0.01, 1.0).max(-1).values.min() > 0.9
    torch.testing.assert_close(nucleus_of(log_probs, 1.0, 1.0), log_probs.exp())
    coldest = nucleus_of(log_probs.double(), 1e-310, 1.0)
    assert coldest.max(-1).values.tolist() == [1.0] * 5 and (coldest > 0).sum() == 5
    assert coldest.argmax(-1).tolist() == log_probs.argmax(-1).tolist()


@pytest.mark.parametrize(
    "make,message",
    [
        (lambda: ParaformerBeamSearch(0), "beam_size=0"),
        (lambda: ParaformerBeamSearch(ctc_weight=1), "ctc_weight=1"),
        (lambda: ParaformerSamplingSearch(0), "samples=0"),
        (lambda: ParaformerSamplingSearch(temperature=0), "temperature=0"),
        (lambda: ParaformerSamplingSearch(top_p=1.5), "top_p=1.5"),
        (lambda: ParaformerSamplingSearch(seed=-1), "seed=-1"),
        (lambda: ParaformerSamplingSearch(seed=2**70), "seed=1180591620717411303424 must be"),
    ],
)
def test_settings_out_of_range_are_refused(make, message):
    with pytest.raises(UserError, match=message):
        make()


def test_ctc_needs_a_model_that_has_it():
    model, *inputs = heard([2])
    model.frames = None
    with pytest.raises(UserError, match="needs a model with a CTC layer"):
        ParaformerBeamSearch(2, ctc_weight=0.3)(model, *inputs)


def test_texts_that_ctc_finds_impossible_are_in_no_list():
    """Two frames have room for 'ab', and not for 'aa' (a blank stands between); one frame has for neither."""
    model, encoded, _ = heard([2, 2], T=2)
    search = ParaformerBeamSearch(100, 0.3)
    first, second = search(model, encoded, torch.tensor([2, 1]))
    assert {tuple(h.tokens) for h in first} == {
        text for text in product((1, 2, 3), repeat=2) if len({*text}) > 1
    }
    assert all(math.isfinite(h.score) for h in first)
    assert [(h.tokens, h.score, h.parts) for h in second] == [([], -math.inf, {"acoustic": -math.inf})]


def test_ctc_hears_a_clip_up_to_its_own_end():
    model, encoded, _ = heard([3, 2])
    search = ParaformerBeamSearch(100, 0.4)
    together = search(model, encoded, torch.tensor([6, 4]))[1]
    alone = Written(model.log_probs[1:, :2], model.lengths[1:], model.frames[1:, :4])
    (found,) = search(alone, encoded[1:, :4], torch.tensor([4]))
    assert [h.tokens for h in together] == [h.tokens for h in found]
    assert [h.score for h in together] == pytest.approx([h.score for h in found])
    whole = search(model, encoded, torch.tensor([6, 6]))[1]
    assert [h.score for h in whole] != pytest.approx([h.score for h in found])
