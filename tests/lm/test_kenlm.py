"""The same numbers as the standard tools: lmplz's estimate, and what the kenlm module scores, kept in small files."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from src.decoding import CTCBeamSearch
from src.lm import NGramLM, TokenNGramScorer, WordNGramScorer
from src.lm.kenlm_binary import KenLMBinary, open_word_lm
from src.text_encoder import CharTextEncoder
from src.utils.errors import UserError

REFERENCE = Path(__file__).parents[1] / "reference"
LMPLZ = json.loads((REFERENCE / "lmplz.json").read_text(encoding="utf-8"))
KENLM = json.loads((REFERENCE / "kenlm_scores.json").read_text(encoding="utf-8"))


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


@pytest.mark.parametrize("column,order", enumerate(KENLM["orders"], start=1))
def test_scores_are_those_of_the_kenlm_module(column, order):
    """log10 of whole sentences, as the module gave them for this project's models, written as ARPA."""
    lm = NGramLM.estimate(LMPLZ["text"], order=order)
    for row in KENLM["scores"]:
        assert lm.score(row[0]) == pytest.approx(row[column], abs=1e-4), row[0]


def test_the_kenlm_module_still_gives_the_scores_that_are_kept(tmp_path):
    kenlm = pytest.importorskip("kenlm")
    for column, order in enumerate(KENLM["orders"], start=1):
        NGramLM.estimate(LMPLZ["text"], order=order).to_arpa(tmp_path / "lm.arpa")
        theirs = kenlm.Model(str(tmp_path / "lm.arpa"))
        for row in KENLM["scores"]:
            assert theirs.score(row[0], bos=True, eos=True) == pytest.approx(row[column], abs=1e-4)


# build_binary's, of the same text, order 4
BINARY = REFERENCE / "kenlm_probing.bin"


def test_a_binary_file_gives_what_the_model_gives_that_it_was_made_from():
    lm, binary = NGramLM.estimate(LMPLZ["text"], order=4), KenLMBinary(BINARY)
    assert binary.order == 4 and set(binary.words) == set(lm.words)
    for sentence in [*LMPLZ["text"][:40], "the zebra sat", "", "unheard of words only", "the <s> of </s>"]:
        assert binary.score(sentence) == pytest.approx(lm.score(sentence), abs=1e-4)


def test_a_search_with_a_binary_file_is_one_with_the_model_that_it_was_made_from():
    tokens = CharTextEncoder().tokens
    log_probs = torch.randn(2, 12, len(tokens), generator=torch.Generator().manual_seed(0)).log_softmax(-1)
    found = []
    for lm in (NGramLM.estimate(LMPLZ["text"], order=4), BINARY):
        search = CTCBeamSearch(8, scorers=[(WordNGramScorer(lm, tokens), 0.5)])
        found.append(
            [[(h.tokens, round(h.score, 3)) for h in row] for row in search(log_probs, torch.tensor([12, 7]))]
        )
    assert found[0] == found[1]


@pytest.mark.parametrize(
    "change,message",
    [
        (lambda b: b[:-50], "cut short or damaged"),
        (lambda b: b[:2000], "cut short or damaged"),
        (lambda b: b[:60], "cut short or damaged"),
        (lambda b: b[:109], "cut short or damaged"),
        (lambda b: b[:92] + struct.pack("<f", math.nan) + b[96:], "cut short or damaged"),
        (lambda b: b[:92] + struct.pack("<f", math.inf) + b[96:], "cut short or damaged"),
        (lambda b: b.replace(b"version 5", b"version 4"), "another version of KenLM"),
        (lambda b: b[:96] + b"\2" + b[97:], "of the type 'trie'; build it as 'probing'"),
        (lambda b: b[:100] + b"\0" + b[101:], "was built without its words"),
        (lambda b: b[:108] + b"\xff" * 8 + b[116:], "cut short or damaged"),
    ],
)
def test_a_binary_file_that_cannot_serve_is_one_line(tmp_path, change, message):
    file = tmp_path / "lm.bin"
    file.write_bytes(change(BINARY.read_bytes()))
    with pytest.raises(UserError, match=message) as error:
        WordNGramScorer(str(file), CharTextEncoder().tokens)
    assert str(file) in str(error.value)


def test_a_binary_file_serves_for_words_alone():
    with pytest.raises(UserError, match="a KenLM binary, which serves as a model of words only"):
        TokenNGramScorer(str(BINARY), CharTextEncoder().tokens)


def test_flipped_bytes_of_a_binary_file_never_crash(tmp_path):
    rng, content = np.random.default_rng(0), np.frombuffer(BINARY.read_bytes(), np.uint8)
    for number in range(60):
        damaged = content.copy()
        damaged[rng.integers(150 if number % 2 else len(content), size=3)] = rng.integers(256, size=3)
        (tmp_path / "lm.bin").write_bytes(damaged.tobytes())
        try:
            assert not math.isnan(open_word_lm(tmp_path / "lm.bin").score(LMPLZ["text"][0]))
        except UserError:
            pass
