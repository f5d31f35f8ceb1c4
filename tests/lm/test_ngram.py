from __future__ import annotations

import gzip
import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file

from src.lm import NGramLM
from src.lm.kneser_ney import SPECIAL, count_levels, distinct_ngrams, padded
from src.lm.trie import is_trie
from src.utils.errors import UserError

words = st.sampled_from(["a", "b", "c", "dd", "e"])
texts = st.lists(st.lists(words, max_size=6).map(" ".join), min_size=1, max_size=30).filter(
    lambda ls: any(ls)
)


def distribution(lm: NGramLM, node: int) -> torch.Tensor:
    V = len(lm.words)
    log_prob, _ = lm.advance(torch.full((V,), node), torch.arange(V))
    return (10**log_prob) * torch.tensor([word != "<s>" for word in lm.words])


@given(lines=texts, order=st.integers(1, 6), rare=st.integers(0, 2))
@settings(max_examples=40, deadline=None)
def test_every_context_is_a_distribution(lines, order, rare):
    prune = [0] * order if order < 3 else [0, 0, *[rare] * (order - 2)]
    lm = NGramLM.estimate(lines, order=order, prune=prune)
    assert is_trie(lm)
    for node in range(lm.starts[-2]):
        assert float(distribution(lm, node).sum()) == pytest.approx(1, abs=1e-5)


def test_the_estimate_is_the_one_worked_by_hand():
    """Two sentences, order 2; too small for discounts of its own, so that 0.5, 1 and 1.5 are taken.

    Bigrams: <s> a (2), a b, b </s>, a </s>: a is followed by two words, each once. Distinct left neighbours: a 1,
    b 1, </s> 2; 4 in all. Vocabulary for the uniform part: <unk>, </s>, a, b.
    """
    lm = NGramLM.estimate(["a b", "a"], order=2)
    freed = (0.5 + 0.5 + 1) / 4
    p = {"a": 0.5 / 4 + freed / 4, "b": 0.5 / 4 + freed / 4, "</s>": 1 / 4 + freed / 4, "<unk>": freed / 4}
    unigrams = dict(zip(lm.words, distribution(lm, 0).tolist(), strict=True))
    assert {word: unigrams[word] for word in p} == pytest.approx(p, abs=1e-6)
    begin, a, b = lm.begin, 1 + lm.ids["a"], 1 + lm.ids["b"]
    after_begin = dict(zip(lm.words, distribution(lm, begin).tolist(), strict=True))
    assert after_begin["a"] == pytest.approx((2 - 1) / 2 + 1 / 2 * p["a"], abs=1e-6)
    after_a = dict(zip(lm.words, distribution(lm, a).tolist(), strict=True))
    assert after_a["b"] == pytest.approx((1 - 0.5) / 2 + (0.5 + 0.5) / 2 * p["b"], abs=1e-6)
    after_b = dict(zip(lm.words, distribution(lm, b).tolist(), strict=True))
    assert after_b["a"] == pytest.approx(0.5 * p["a"], abs=1e-6)
    whole = math.log10(after_begin["a"] * after_a["b"] * after_b["</s>"])
    assert lm.score("a b") == pytest.approx(whole, abs=1e-5)


def test_words_that_look_like_marks_are_unknown():
    lm = NGramLM.estimate(["a <s> b", "a </s>", "<unk> a"], order=2)
    assert lm.score("a <s> b") == lm.score("a zzz b")
    assert lm.words[:3] == list(SPECIAL)


def sample_lm(order: int = 3) -> NGramLM:
    return NGramLM.estimate(["a b c", "a b", "c a b a", "", "b b c", "c"], order=order)


@pytest.mark.parametrize("name", ["lm.arpa", "lm.arpa.gz"])
def test_arpa_and_back_is_the_same_model(tmp_path, name):
    lm = sample_lm()
    lm.to_arpa(tmp_path / name)
    again = NGramLM.from_arpa(tmp_path / name)
    assert again.words == lm.words and again.starts == lm.starts
    for part in ("keys", "log_prob", "backoff", "suffix"):
        assert torch.equal(getattr(again, part), getattr(lm, part))


def test_the_binary_form_and_back_is_the_same_model(tmp_path):
    lm = sample_lm()
    lm.save(tmp_path / "lm.safetensors")
    again = NGramLM.load(tmp_path / "lm.safetensors")
    assert again.words == lm.words and again.score("a b c") == lm.score("a b c")


def with_one(values, place, value):
    values = values.clone()
    values[place] = value
    return values


@pytest.mark.parametrize(
    "part,change",
    [
        ("keys", lambda x: x.flip(0)),  # searched by halves, yet not sorted
        ("keys", lambda x: with_one(x, -1, x[-2])),  # an n-gram that stands twice
        ("keys", lambda x: with_one(x, 0, -1)),
        ("keys", lambda x: with_one(x, -1, 2**62)),  # a parent that is no node
        ("keys", lambda x: with_one(x, len(x) - 1, len(x) * 6)),  # a 3-gram that goes on from a 3-gram
        ("keys", lambda x: x.int()),
        ("suffix", lambda x: x + 1000),
        ("suffix", lambda x: with_one(x, -1, len(x) - 2)),  # of the same order: would go on for ever
        ("suffix", lambda x: with_one(x, -1, -1)),
        ("suffix", lambda x: with_one(x, 0, 1)),
        ("suffix", lambda x: x.float()),
        ("suffix", lambda x: x[:-1]),
        ("log_prob", lambda x: with_one(x, 3, float("nan"))),
        ("log_prob", lambda x: with_one(x, 3, float("-inf"))),
        ("log_prob", lambda x: -x),
        ("log_prob", lambda x: x[:, None]),
        ("backoff", lambda x: with_one(x, 3, float("inf"))),
        ("backoff", lambda x: x.double()),
        ("words", lambda x: [1, 2, 3, *x[3:]]),
        ("words", lambda x: [*x[:3], 4, *x[4:]]),
        ("words", lambda x: [*x[:-1], x[-2]]),
        ("words", lambda x: x[:-1]),
        ("words", lambda x: x[::-1]),
        ("words", lambda x: 5),
        ("starts", lambda x: x[-1:]),
        ("starts", lambda x: [float(start) for start in x]),
        ("starts", lambda x: [x[0], x[1], x[2] + 1, x[3]]),
        ("starts", lambda x: [x[0], x[1], x[3], x[2], x[3]]),
        ("starts", lambda x: []),
        ("starts", lambda x: "1"),
    ],
)
def test_a_damaged_binary_is_one_line(tmp_path, part, change):
    """Whatever one of its parts has become: no wrong scores, and no other error later on."""
    file = tmp_path / "lm.safetensors"
    sample_lm().save(file)
    with safe_open(file, "pt") as opened:
        about, parts = opened.metadata(), {name: opened.get_tensor(name) for name in opened.keys()}
    if part in parts:
        parts[part] = change(parts[part]).contiguous()
    else:
        about[part] = json.dumps(change(json.loads(about[part])))
    save_file(parts, file, about)
    with pytest.raises(UserError, match=f"{file}: its parts do not fit together; make it again"):
        NGramLM.open(file)


FOREIGN = """made by hand

\\data\\
ngram 1=4
ngram 2=2

\\1-grams:
-99\t<s>\t-0.5
-0.4\tB\t-0.25
-1\tA
-0.9\t</s>

\\2-grams:
-0.1\t<s> A
-0.2\tA B

\\end\\
"""


def test_files_of_other_programs(tmp_path):
    """Another order of the words, back-off weights left out, no <unk> (then 10^-100), Windows line ends and mark."""
    file = tmp_path / "foreign.arpa"
    file.write_bytes(FOREIGN[FOREIGN.index("\\data") :].replace("\n", "\r\n").encode("utf-8-sig"))
    lm = NGramLM.from_arpa(file)
    assert lm.score("A B") == pytest.approx(-0.1 - 0.2 + (-0.25 - 0.9), abs=1e-6)
    assert lm.score("B") == pytest.approx((-0.5 - 0.4) + (-0.25 - 0.9), abs=1e-6)
    assert lm.score("A ?") == pytest.approx(-0.1 + (0 - 100) + -0.9, abs=1e-5)


@pytest.mark.parametrize(
    "change,message",
    [
        (lambda s: s.replace("ngram 2=2", "ngram 2=3"), "announces 3 2-grams but has 2"),
        (lambda s: s[: s.index("-0.2\tA")], r"\\end\\ is missing"),
        (lambda s: s[: s.index("\\2-grams")], r"\\2-grams: is missing"),
        (lambda s: s.replace("A B", "A C"), "'C' of a 2-gram is no 1-gram"),
        (lambda s: s.replace("A B", "A"), "'A' stands among the 2-grams"),
        (lambda s: s.replace("-0.4\tB", "much\tB"), "1-grams cannot be read"),
        (lambda s: s.replace("-0.4\tB", "\tB"), "1-gram has no number"),
        (lambda s: s.replace("-0.5\tB", "0.5\tB").replace("-0.4\tB", "0.4\tB"), "log probability above 0"),
        (lambda s: s.replace("-0.4\tB", "inf\tB"), "log probability above 0"),
        (lambda s: s.replace("-0.4\tB", "nan\tB"), "no number|above 0"),
        (lambda s: s.replace("\t-0.25", "\t-inf"), "back-off weight that is not finite"),
        (lambda s: s.replace("\t", " "), "no tabs part the columns of its 1-grams"),
        (lambda s: s.replace("<s> A", "A B"), "an n-gram of order 2 stands twice"),
        (lambda s: s.replace("-1\tA", "-1\tB"), "stands twice|no 1-gram"),
        (lambda s: s.replace("</s>", "C"), "has no </s> among its 1-grams"),
        (lambda s: "hello\n", "no \\\\data\\\\ part"),
        (lambda s: "", "no \\\\data\\\\ part"),
    ],
)
def test_damaged_files_are_named(tmp_path, change, message):
    file = tmp_path / "bad.arpa"
    file.write_text(change(FOREIGN))
    with pytest.raises(UserError, match=message) as error:
        NGramLM.from_arpa(file)
    assert str(file) in str(error.value)


def test_other_files_are_named(tmp_path):
    cut = tmp_path / "cut.arpa.gz"
    cut.write_bytes(gzip.compress(FOREIGN.encode())[:-20])
    binary = tmp_path / "lm.bin"
    binary.write_bytes(b"mmap lm http://kheafield.com/code format version 5\n\0" + bytes(100))
    for file, message in (
        (cut, "cannot be read"),
        (binary, "a KenLM binary"),
        (tmp_path / "none", "no such"),
    ):
        with pytest.raises(UserError, match=message):
            NGramLM.from_arpa(file)
    none = tmp_path / "none"
    for file, message in (
        (cut, "no language model can be read"),
        (none, "no such"),
    ):
        with pytest.raises(UserError, match=message):
            NGramLM.load(file)
    with pytest.raises(UserError, match="a folder; an n-gram model is a file"):
        NGramLM.open(tmp_path)


@pytest.mark.parametrize(
    "settings_,message",
    [
        ({"order": 0}, "order=0"),
        ({"order": 7}, "order=7"),
        ({"order": 2, "prune": [0]}, "prune="),
        ({"order": 3, "prune": [0, 2, 1]}, "prune="),
        ({"order": 2, "prune": [1, 1]}, "prune="),
    ],
)
def test_settings_that_do_not_fit(settings_, message):
    with pytest.raises(UserError, match=message):
        NGramLM.estimate(["a"], **settings_)
    with pytest.raises(UserError, match="no words"):
        NGramLM.estimate(["", " "], order=2)


def test_unigrams_score_every_word_alone():
    lm = NGramLM.estimate(["a b", "a"], order=1)
    p = dict(zip(lm.words, distribution(lm, 0).tolist(), strict=True))
    assert lm.score("b a") == pytest.approx(math.log10(p["b"] * p["a"] * p["</s>"]), abs=1e-5)


def test_vocabularies_too_large_for_a_number_an_ngram_give_the_same_counts():
    rng = np.random.default_rng(0)
    line, ends = padded(rng.integers(3, 9, 200), np.array([120, 0, 80]), order=4)
    rows, counts = distinct_ngrams(line, ends, 4, vocab_size=9)
    same_rows, same_counts = distinct_ngrams(line, ends, 4, vocab_size=2**30)
    np.testing.assert_array_equal(rows, same_rows)
    np.testing.assert_array_equal(counts, same_counts)
    small, large = count_levels(rows, counts, 9), count_levels(rows, counts, 2**20)
    for one, other in zip(small[1:], large[1:], strict=True):
        np.testing.assert_array_equal(one.words, other.words)
        np.testing.assert_array_equal(one.count, other.count)


def test_words_with_quotes_survive_an_arpa_file(tmp_path):
    lm = NGramLM.estimate(['say "hi"', "say it's"], order=2)
    lm.to_arpa(tmp_path / "lm.arpa")
    assert NGramLM.open(tmp_path / "lm.arpa").score('say "hi"') == pytest.approx(
        lm.score('say "hi"'), abs=1e-5
    )


def test_an_unknown_word_in_capitals_and_impossible_words_are_read(tmp_path):
    file = tmp_path / "lm.arpa"
    lines = [
        "\\data\\",
        "ngram 1=4",
        "",
        "\\1-grams:",
        "-2\t<UNK>",
        "-99\t<s>",
        "-1\t</s>",
        "-inf\ta",
        "",
        "\\end\\",
    ]
    file.write_text("\n".join(lines) + "\n")
    lm = NGramLM.from_arpa(file)
    assert lm.score("zzz") == pytest.approx(-3, abs=1e-5)
    assert lm.score("a") == pytest.approx(-101, abs=1e-4)


def test_a_context_whose_mass_is_all_used_up_still_backs_off(tmp_path):
    """Here Kneser-Ney's discount for n-grams seen once is 0, and with it what "a" would leave to other words."""
    lm = NGramLM.estimate(["d d b d", "d c a", "d d d", "d", "a a a", "c c"], order=2)
    assert lm.backoff.isfinite().all() and math.isfinite(lm.score("a a a b"))
    lm.to_arpa(tmp_path / "lm.arpa")
    assert NGramLM.from_arpa(tmp_path / "lm.arpa").score("a a a b") == pytest.approx(
        lm.score("a a a b"), abs=1e-4
    )
