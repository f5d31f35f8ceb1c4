from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.edit_distance import edit_distance

from src.metrics import ErrorCounts, bootstrap_interval, character_errors, corpus_error_rates, word_errors

texts = st.lists(st.sampled_from(["a", "b", "ab", "c'd"]), max_size=7).map(" ".join)


def test_counts_worked_by_hand() -> None:
    # "two" deleted, "five" and "six" inserted
    assert word_errors(["one two three four"], ["one three four five six"]) == [ErrorCounts(0, 1, 2, 3)]
    # kitten -> sitting: k/s, e/i, +g
    assert character_errors(["kitten"], ["sitting"]) == [ErrorCounts(2, 0, 1, 4)]
    assert character_errors(["ab c"], ["abc"]) == [ErrorCounts(0, 1, 0, 3)]  # the space is a character
    rates = corpus_error_rates(["the cat sat", "yes"], ["the bat sat on", ""])
    assert rates == {
        "wer": 3 / 4,  # cat/bat, +on, -yes
        "cer": 7 / 14,  # c/b, +" on", -yes
        "substitutions": 1,
        "deletions": 1,
        "insertions": 1,
        "words": 4,
        "characters": 14,
    }


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(texts, texts), min_size=1, max_size=4))
def test_equals_the_naive_edit_distance(pairs: list[tuple[str, str]]) -> None:
    references, hypotheses = map(list, zip(*pairs, strict=True))
    for errors, split in ((word_errors, str.split), (character_errors, list)):
        counts = errors(references, hypotheses)
        for count, reference, hypothesis in zip(counts, references, hypotheses, strict=True):
            assert count.errors == edit_distance(split(reference), split(hypothesis))
            assert count.reference_length == len(split(reference))
            assert count.hits + count.substitutions + count.insertions == len(split(hypothesis))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(texts, texts), min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_corpus_rates_do_not_depend_on_order_or_batches(pairs: list[tuple[str, str]], random) -> None:
    rates = corpus_error_rates(*map(list, zip(*pairs, strict=True)))
    random.shuffle(pairs)
    assert corpus_error_rates(*map(list, zip(*pairs, strict=True)))["wer"] == rates["wer"]
    total = sum((word_errors([r], [h])[0] for r, h in pairs), ErrorCounts())
    assert (total.rate, total.reference_length) == (rates["wer"], rates["words"])


def test_the_rate_is_not_the_mean_of_batch_means() -> None:
    references = ["a", "b c d e f g h i j"]
    hypotheses = ["x", "b c d e f g h i j"]
    means = [corpus_error_rates([r], [h])["wer"] for r, h in zip(references, hypotheses, strict=True)]
    assert np.mean(means) == 0.5
    assert corpus_error_rates(references, hypotheses)["wer"] == 0.1


def test_swapping_reference_and_hypothesis_swaps_deletions_and_insertions() -> None:
    reference, hypothesis = ["one two three four"], ["one two"]
    assert corpus_error_rates(reference, hypothesis)["wer"] == 0.5
    swapped = corpus_error_rates(hypothesis, reference)
    assert (swapped["wer"], swapped["insertions"], swapped["deletions"]) == (1.0, 2, 0)


def test_references_without_words() -> None:
    assert corpus_error_rates([""], [""])["wer"] == 0
    assert corpus_error_rates([""], ["a b"])["wer"] == 2  # insertions over a length of 1
    assert corpus_error_rates(["", "a b c d"], ["x", "a b c d"])["wer"] == 0.25
    assert corpus_error_rates([], []) == dict.fromkeys(
        ["wer", "cer", "substitutions", "deletions", "insertions", "words", "characters"], 0
    )
    with pytest.raises(ValueError, match="2 references but 1"):
        corpus_error_rates(["a", "b"], ["a"])


def test_the_interval_matches_resampling_written_out() -> None:
    rng = np.random.default_rng(0)
    length = rng.integers(1, 20, size=60)
    wrong = rng.binomial(length, 0.2)
    counts = [ErrorCounts(substitutions=int(w), hits=int(n - w)) for w, n in zip(wrong, length, strict=True)]
    rows = rng.integers(0, 60, size=(4000, 60))
    plain = np.quantile(wrong[rows].sum(1) / length[rows].sum(1), [0.025, 0.975])
    low, high = bootstrap_interval(counts, draws=4000)
    assert np.allclose([low, high], plain, atol=0.006)
    assert low < sum(counts, ErrorCounts()).rate < high
    assert bootstrap_interval(counts[::-1], draws=4000) == (low, high)
    assert bootstrap_interval(counts, draws=4000, seed=1) != (low, high)


def test_the_interval_has_no_width_where_nothing_varies() -> None:
    assert bootstrap_interval([ErrorCounts(substitutions=1, hits=3)] * 9) == (0.25, 0.25)
    assert bootstrap_interval([ErrorCounts()]) == (0, 0)
    with pytest.raises(ValueError):
        bootstrap_interval([])
