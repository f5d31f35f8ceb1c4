"""The same numbers as the standard tools: lmplz's estimate, kept in a small file, and the kenlm module's reading."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from src.lm import NGramLM

LMPLZ = json.loads((Path(__file__).parents[1] / "reference" / "lmplz.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    "case", LMPLZ["cases"], ids=lambda case: f"order {case['order']}, prune {case['prune']}"
)
def test_the_estimate_is_that_of_lmplz(case):
    """log10 of all n-grams, and their back-off weights, as lmplz wrote them for the same text."""
    lm = NGramLM.estimate(LMPLZ["text"], order=case["order"], prune=case["prune"])
    names, found = [""], {}
    for node, key in enumerate(lm.keys.tolist(), start=1):
        parent, word = divmod(key, len(lm.words))
        names.append(f"{names[parent]} {lm.words[word]}".strip())
        found[names[-1]] = (float(lm.log_prob[node]), float(lm.backoff[node]))
    theirs = {ngram: (log_prob, backoff) for ngram, log_prob, backoff in case["ngrams"]}
    assert found.keys() == theirs.keys()
    for ngram, (log_prob, backoff) in theirs.items():
        if ngram != "<s>":  # which nothing predicts: 0 to lmplz, -99 to ARPA
            assert found[ngram][0] == pytest.approx(log_prob, abs=1e-4), ngram
        assert found[ngram][1] == pytest.approx(backoff, abs=1e-4), ngram


def test_scores_are_those_of_the_kenlm_module(tmp_path):
    kenlm = pytest.importorskip("kenlm")
    for order in (2, 3, 5):  # of order 1 kenlm reads none
        lm = NGramLM.estimate(LMPLZ["text"], order=order)
        lm.to_arpa(tmp_path / "lm.arpa")
        theirs = kenlm.Model(str(tmp_path / "lm.arpa"))
        for sentence in [*LMPLZ["text"][:40], "the zebra sat", "", "unheard of words only"]:
            assert lm.score(sentence) == pytest.approx(theirs.score(sentence, bos=True, eos=True), abs=1e-4)
