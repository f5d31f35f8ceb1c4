from __future__ import annotations

import math
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from src.decoding.ctc_prefix_scorer import CTCPrefixScorer


def log_probs(
    B: int, frames: int, V: int, seed: int = 0, scale: float = 2.0, impossible: float = 0.0
) -> Tensor:
    """Of which this share is of what cannot be."""
    generator = torch.Generator().manual_seed(seed)
    rows = (scale * torch.randn(B, frames, V, generator=generator, dtype=torch.float64)).log_softmax(-1)
    return rows.masked_fill(torch.rand(rows.shape, generator=generator) < impossible, -math.inf)


def ctc(row: Tensor, text: tuple[int, ...]) -> float:
    """log P(text) of one utterance [T, V]."""
    if not len(row):
        return 0.0 if not text else -math.inf
    target, sizes = torch.tensor(text, dtype=torch.long), (torch.tensor(len(row)), torch.tensor(len(text)))
    return -F.ctc_loss(row, target, *sizes, reduction="sum").item()


def walked(scorer: CTCPrefixScorer, batch: int, text: tuple[int, ...]) -> tuple[Tensor, list[Tensor]]:
    """The state after a text in slot 0 of each utterance, and what was added for each of its tokens [B]."""
    state, added = scorer.start(batch), []
    for token in text:
        added.append(scorer.score(state)[:, 0, token])
        state = scorer.advance(state, torch.zeros(batch, 1, dtype=torch.long), torch.full((batch, 1), token))
    return state, added


@pytest.mark.parametrize("prefix", [(), (1,), (1, 1), (2, 1)])
def test_a_prefix_is_worth_all_texts_that_begin_with_it(prefix):
    T, V = 5, 3
    row = log_probs(1, T, V)
    scorer = CTCPrefixScorer(row, torch.tensor([T]))
    state, added = walked(scorer, 1, prefix)
    points = scorer.score(state)[0, 0]

    def likelihood(begin: tuple[int, ...]) -> float:
        rests = [rest for U in range(T + 1) for rest in product(range(1, V), repeat=U)]
        return sum(math.exp(ctc(row[0], begin + rest)) for rest in rests if len(begin + rest) <= T)

    for token in range(1, V):
        expected = math.log(likelihood((*prefix, token))) - math.log(likelihood(prefix))
        assert points[token].item() == pytest.approx(expected, abs=1e-9)
    assert points[0].item() == pytest.approx(ctc(row[0], prefix) - math.log(likelihood(prefix)), abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_whole_text_adds_up_to_its_ctc_loss(data):
    B, T, V = 3, data.draw(st.integers(1, 30)), data.draw(st.integers(2, 6))
    scale = data.draw(st.sampled_from([0.0, 1.0, 10.0]))
    impossible = data.draw(st.sampled_from([0.0, 0.1, 0.5]))
    rows = log_probs(B, T, V, data.draw(st.integers(0, 1000)), scale, impossible)
    lengths = torch.tensor([T, (T + 1) // 2, 0])
    text = tuple(data.draw(st.lists(st.integers(1, V - 1), max_size=6)))
    scorer = CTCPrefixScorer(rows, lengths)
    state, added = walked(scorer, B, text)
    total = sum(added, torch.zeros(B)) + scorer.finish(state)[:, 0]
    for row, length, found in zip(rows, lengths, total, strict=True):
        expected = ctc(row[:length], text)
        assert found.item() == pytest.approx(expected, abs=1e-8)


def test_tokens_that_cannot_be_are_never():
    rows = torch.tensor([[[0.5, 0.5, 0.0], [0.5, 0.5, 0.0], [1.0, 0.0, 0.0]]]).double().log()
    scorer = CTCPrefixScorer(rows, torch.tensor([3]))
    state = scorer.start(1)
    assert scorer.score(state)[0, 0].exp().tolist() == pytest.approx([0.25, 0.75, 0.0], abs=1e-12)
    state, _ = walked(scorer, 1, (1,))
    assert scorer.score(state)[0, 0].exp().tolist() == pytest.approx([1.0, 0.0, 0.0], abs=1e-12)


def test_a_text_without_room_is_as_impossible_beside_padding():
    rows = torch.full((1, 4, 2), 0.5, dtype=torch.float64).log()
    for count in 1, 4:
        scorer = CTCPrefixScorer(rows[:, :count], torch.tensor([1]))
        state, _ = walked(scorer, 1, (1,))
        assert scorer.score(state)[0, 0].tolist() == [0.0, -math.inf]


def test_slots_keep_their_texts_and_minus_one_keeps_all():
    rows, lengths = log_probs(2, 8, 4), torch.tensor([8, 5])
    scorer = CTCPrefixScorer(rows, lengths)
    parents = torch.zeros(2, 2, dtype=torch.long)
    state = scorer.advance(scorer.start(2), parents, torch.tensor([[1, 2], [3, 1]]))
    state = scorer.advance(state, torch.tensor([[1, 0], [0, 0]]), torch.tensor([[2, -1], [1, 3]]))
    for b, texts in enumerate([[(2, 2), (1,)], [(3, 1), (3, 3)]]):
        for k, text in enumerate(texts):
            alone = CTCPrefixScorer(rows[b : b + 1, : lengths[b]], lengths[b : b + 1])
            expected = alone.score(walked(alone, 1, text)[0])[0, 0]
            torch.testing.assert_close(scorer.score(state)[b, k], expected)


def test_a_long_flat_clip_does_not_underflow():
    rows = torch.zeros(1, 1500, 29).log_softmax(-1)
    scorer = CTCPrefixScorer(rows, torch.tensor([1500]))
    text = tuple(1 + (7 * i) % 28 for i in range(60))
    state, added = walked(scorer, 1, text)
    total = (sum(added) + scorer.finish(state)[:, 0]).item()
    assert total == pytest.approx(ctc(rows[0].double(), text), rel=1e-9)
