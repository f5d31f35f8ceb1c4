"""What ends a text of a speech LLM, and how its tokens are drawn."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from src.decoding.speech_llm_search import (
    Guard,
    SpeechLLMSamplingSearch,
    _Draws,
    repeats,
    said_once,
)

MODEL = SimpleNamespace(end=0, vocab_size=4)


def test_repetitions_are_found_and_said_once():
    for tokens, times, kept in (
        ([1, 2, 3, 3, 3], 3, [1, 2, 3]),
        ([1, 2, 3, 3], 3, None),
        ([9, 1, 2, 1, 2, 1, 2], 3, [9, 1, 2]),
        ([1, 2, 1, 2, 1, 2, 1], 3, [1, 2, 1]),
        ([9, 1, 2, 1, 2, 1, 3], 3, None),
        ([*range(20)] * 2, 2, [*range(20)]),
        ([*range(21)] * 2, 2, None),
        ([], 2, None),
    ):
        found = repeats(torch.tensor([tokens], dtype=torch.long).view(1, -1), times)
        assert found.tolist() == [kept is not None]
        assert said_once(tokens, times) == (tokens if kept is None else kept)


def test_the_guard_ends_what_is_too_long_or_goes_round():
    guard = Guard(MODEL, limits=torch.tensor([2, 9, 9]), times=2)
    written = torch.tensor([[1, 2], [3, 3], [1, 2]])
    scores = guard(written, torch.tensor([[0.0, 1.0, 2.0, 3.0]]).repeat(3, 1))
    assert scores.argmax(1).tolist() == [0, 0, 3]
    assert scores[0].isfinite().tolist() == [True, False, False, False]
    expected = torch.tensor([0.0, 1.0, 2.0, 3.0]).log_softmax(0)
    torch.testing.assert_close(guard.chosen[0], expected[[0, 0, 3]])  # a forced end costs what it costs


def test_nothing_is_written_that_the_tokenizer_does_not_know():
    """A writer's embeddings may have more rows than there are tokens; what they are given counts as in training."""
    scores = torch.tensor([[0.0, 1.0, 2.0, 3.0, 9.0, 9.0]])
    for kind in (
        Guard,
        lambda *given: _Draws(*given[:2], SpeechLLMSamplingSearch(samples=1, temperature=0.01)),
    ):
        guard = kind(MODEL, torch.tensor([9]), 2)
        assert guard(torch.zeros(1, 0, dtype=torch.long), scores).argmax(1).tolist() == [3]
        torch.testing.assert_close(guard.chosen[0], scores.log_softmax(1)[:, 3])


def test_the_coldest_sampling_is_greedy():
    log_probs = torch.tensor([[0.1, 0.2, 0.3, 0.4], [0.4, 0.1, 0.3, 0.2]]).log()
    for temperature in (1e-3, 1e-40, 1e-310):
        search = SpeechLLMSamplingSearch(samples=1, temperature=temperature)
        draws = _Draws(MODEL, torch.full((2,), 9), search)
        assert draws.preferred(log_probs, 0).argmax(1).tolist() == [3, 0]


@pytest.mark.parametrize("top_p,temperature", [(1.0, 1.0), (0.8, 1.0), (1.0, 2.0), (0.05, 1.0)])
def test_tokens_are_drawn_as_often_as_they_are_probable(top_p, temperature):
    probabilities = torch.tensor([0.5, 0.05, 0.2, 0.25])
    search = SpeechLLMSamplingSearch(samples=4000, temperature=temperature, top_p=top_p)
    draws = _Draws(MODEL, torch.full((4000,), 9), search)
    chosen = draws.preferred(probabilities.log().repeat(4000, 1), 0).argmax(1)
    expected = (probabilities.log() / temperature).softmax(0)
    order = expected.argsort(descending=True).tolist()
    kept, share = set(), 0.0
    for token in order:  # until the share is reached
        kept.add(token)
        share += float(expected[token])
        if share >= top_p - 1e-6:
            break
    expected = torch.stack([expected[i] if i in kept else torch.tensor(0.0) for i in range(4)])
    found = torch.bincount(chosen, minlength=4) / 4000
    torch.testing.assert_close(found, expected / expected.sum(), atol=0.03, rtol=0)


def test_samples_differ_from_each_other_and_from_step_to_step_but_not_by_clip():
    search = SpeechLLMSamplingSearch(samples=4, top_p=1.0)
    draws = _Draws(MODEL, torch.full((8,), 9), search)
    one, other = (draws.preferred(torch.zeros(8, 50), step).argmax(1) for step in (0, 1))
    assert torch.equal(one[:4], one[4:]) and len(set(one.tolist())) > 1 and not torch.equal(one, other)
