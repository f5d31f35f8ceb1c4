"""The interval and the ranking that a score reports, on numbers that are known."""

from __future__ import annotations

import math

import pytest

from src.metrics import ErrorCounts, bootstrap_interval, paired_interval
from src.metrics.scoring import Score, ScoredUtterance


def score(*words: tuple[str, int, int]) -> Score:
    """Of utterances (id, wrong words, right words)."""
    utterances = [
        ScoredUtterance(name, "", "", ErrorCounts(substitutions=wrong, hits=right), ErrorCounts())
        for name, wrong, right in words
    ]
    return Score(utterances, [], [], [], [])


def binomial_quantile(n: int, p: float, level: float) -> int:
    """The least k with P(X <= k) >= level."""
    total = 0.0
    for k in range(n + 1):
        total += math.comb(n, k) * p**k * (1 - p) ** (n - k)
        if total >= level:
            return k
    return n


@pytest.mark.parametrize("wrong", [40, 100, 340])
def test_the_interval_of_one_word_clips_is_the_binomials_95_percent(wrong):
    # Drawing 400 one-word clips again is tossing a coin of probability wrong / 400 as often.
    result = score(*((f"u{i:03}", int(i < wrong), int(i >= wrong)) for i in range(400)))
    exact = [binomial_quantile(400, wrong / 400, level) / 400 for level in (0.025, 0.975)]
    assert result.wer_interval == pytest.approx(exact, abs=0.0035)
    assert result.as_dict()["wer_interval_95"] == list(result.wer_interval)


def test_a_lower_level_gives_the_narrower_interval_of_that_level():
    counts = [ErrorCounts(substitutions=1)] * 100 + [ErrorCounts(hits=1)] * 300
    exact = [binomial_quantile(400, 0.25, level) / 400 for level in (0.05, 0.95)]
    assert bootstrap_interval(counts, level=0.9) == pytest.approx(exact, abs=0.0035)


def test_clips_weigh_as_often_as_they_occur():
    # Nine kinds of clips with one error each, but 991 perfect ones.
    counts = [ErrorCounts(substitutions=1, hits=n) for n in range(9)] + [ErrorCounts(hits=5)] * 991
    low, high = bootstrap_interval(counts)
    assert 0 < low < 9 / 5000 < high < 0.004


def test_the_worst_are_ordered_by_errors_then_rate_then_id():
    result = score(("d", 2, 2), ("c", 2, 8), ("b", 2, 2), ("a", 0, 4), ("e", 3, 97), ("f", 1, 0))
    assert [u.id for u in result.worst(10)] == ["e", "b", "d", "c", "f"]
    assert [u.id for u in result.worst(2)] == ["e", "b"]


def test_the_paired_interval_of_one_word_clips_is_the_binomials():
    # Both systems miss 200 words; of the other 400, the second alone misses 100: a coin of 100 / 600.
    right, wrong = ErrorCounts(hits=1), ErrorCounts(substitutions=1)
    ours, theirs = [wrong] * 200 + [right] * 400, [wrong] * 300 + [right] * 300
    exact = [-binomial_quantile(600, 100 / 600, level) / 600 for level in (0.975, 0.025)]
    assert paired_interval(ours, theirs) == pytest.approx(exact, abs=0.003)
    low, high = paired_interval(theirs, ours)
    assert (-high, -low) == pytest.approx(exact, abs=0.003)


def test_the_paired_interval_does_not_see_how_hard_the_clips_are():
    """Unlike the two systems' own intervals, which overlap."""
    clips = [(n % 7, 10) for n in range(21)]
    ours = [ErrorCounts(substitutions=e, hits=n - e) for e, n in clips]
    theirs = [ErrorCounts(substitutions=e + 1, hits=n - e - 1) for e, n in clips]
    assert paired_interval(ours, theirs) == pytest.approx((-0.1, -0.1))
    assert bootstrap_interval(ours)[1] > bootstrap_interval(theirs)[0]


@pytest.mark.parametrize("other", [[], [ErrorCounts(hits=2)], [ErrorCounts(hits=1)] * 2])
def test_a_pair_needs_the_same_utterances(other):
    with pytest.raises(ValueError):
        paired_interval([ErrorCounts(hits=1)], other)
