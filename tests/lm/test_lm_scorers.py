from __future__ import annotations

import math
import re

import pytest
import torch
from reference.ctc_brute_force import text_probabilities

from src.decoding import CTCBeamSearch
from src.lm import NeuralScorer, NGramLM, TokenNGramScorer, WordNGramScorer
from src.utils.errors import UserError

LINES = ["ab a", "ab ab b", "a ab", "b a ab", "ba", "ab ba a", "a", "ab a b"]
CHARACTERS = ["<blank>", "▁", "a", "b"]
PIECES = ["<blank>", "▁a", "▁", "b", "ab", "▁ba"]


def text_of(tokens, pieces) -> str:
    return "".join(pieces[token] for token in tokens).replace("▁", " ")


@pytest.mark.parametrize("pieces,T", [(CHARACTERS, 6), (PIECES, 5)])
@pytest.mark.parametrize("order", [1, 2, 3])
def test_a_beam_with_words_is_brute_force(pieces, T, order):
    """Whatever the tokens, a hypothesis gets what the language model gives its whole text."""
    lm = NGramLM.estimate(LINES, order=order)
    log_probs = torch.randn(1, T, len(pieces), generator=torch.Generator().manual_seed(order)).log_softmax(-1)
    search = CTCBeamSearch(5000, scorers=[(WordNGramScorer(lm, pieces, unknown_penalty=-2.0), 0.7)])
    hypotheses = search(log_probs, torch.tensor([T]))[0]
    truth = {}
    for tokens, acoustic in text_probabilities(log_probs[0].double().tolist()).items():
        text = text_of(tokens, pieces)
        unknown = sum(word not in lm.ids for word in text.split())
        truth[tokens] = acoustic + 0.7 * (math.log(10) * lm.score(text) - 2.0 * unknown)
    assert {tuple(h.tokens): pytest.approx(h.score, abs=1e-5) for h in hypotheses} == truth


def test_a_model_of_other_letters_is_refused():
    lm = NGramLM.estimate(["привет мир"], order=1)
    with pytest.raises(UserError, match="cannot be written with the tokenizer's letters"):
        WordNGramScorer(lm, CHARACTERS)


def test_a_model_without_words_is_refused():
    with pytest.raises(UserError, match="cannot be written with the tokenizer's letters"):
        WordNGramScorer(NGramLM.estimate(["<unk> <unk>"], order=1), CHARACTERS)


def test_upper_case_words_are_folded():
    lm = NGramLM.estimate([line.upper() for line in LINES], order=2)
    lower = NGramLM.estimate(LINES, order=2)
    log_probs = torch.randn(2, 8, 4, generator=torch.Generator().manual_seed(0)).log_softmax(-1)
    found = [
        CTCBeamSearch(8, scorers=[(WordNGramScorer(model, CHARACTERS), 0.5)])(log_probs, torch.tensor([8, 5]))
        for model in (lm, lower)
    ]
    assert [[h.tokens for h in batch] for batch in found[0]] == [
        [h.tokens for h in batch] for batch in found[1]
    ]


@pytest.mark.parametrize("order", [1, 2, 3, 4])
@pytest.mark.parametrize("seed", range(2))
def test_a_beam_with_a_token_model_is_brute_force(order, seed):
    spelled = [" ".join(line.replace(" ", "▁")) for line in LINES]
    lm = NGramLM.estimate(spelled, order=order)
    log_probs = torch.randn(1, 5, 4, generator=torch.Generator().manual_seed(seed)).log_softmax(-1)
    search = CTCBeamSearch(5000, scorers=[(TokenNGramScorer(lm, CHARACTERS), 0.6)])
    truth = {
        tokens: acoustic + 0.6 * math.log(10) * lm.score(" ".join(CHARACTERS[token] for token in tokens))
        for tokens, acoustic in text_probabilities(log_probs[0].double().tolist()).items()
    }
    hypotheses = search(log_probs, torch.tensor([5]))[0]
    assert {tuple(h.tokens): pytest.approx(h.score, abs=1e-4) for h in hypotheses} == truth


def test_every_next_token_at_once_is_one_after_the_other():
    lm = NGramLM.estimate(["a b ▁ a", "b b a", "▁ a b a b", "a a"], order=4, prune=[0, 0, 0, 1])
    scorer = TokenNGramScorer(lm, [*CHARACTERS, "c"])  # "c" is unknown to the model
    nodes = torch.arange(lm.starts[-2])
    points = scorer._all_next(nodes)
    for token, piece in enumerate([*CHARACTERS, "c"]):
        word = torch.full_like(nodes, lm.ids.get(piece, 0))
        assert torch.allclose(points[:, token].double(), math.log(10) * lm.advance(nodes, word)[0], atol=1e-5)


@pytest.mark.parametrize(
    "lines,message",
    [
        (LINES, "knows 2 of the tokenizer's 28 tokens, and its 'ab' is none; estimate"),
        (
            ["the cat", *"abcdefghijklmnopqrstuvwxyz'"],
            "knows 27 of .* 28 tokens, and its 'the' is none",
        ),  # words
        (["▁the ▁cat", "▁ t h e c a s o n m"], "knows 10 of .* 28 tokens, and its '▁the' is none"),
        ([" ".join("the▁cat▁sat▁on▁the▁mat")], "knows 10 of the tokenizer's 28 tokens; estimate"),
    ],
)
def test_a_model_of_other_tokens_is_refused(lines, message):
    """Of words, even if each letter is one of them; of another tokenizer, even if it has all tokens of this one."""
    with pytest.raises(UserError, match=message):
        TokenNGramScorer(NGramLM.estimate(lines, order=2), ["<blank>", "▁", *"'abcdefghijklmnopqrstuvwxyz"])


@pytest.mark.parametrize("lm", [None, 5, "", ["words.bin"]])
@pytest.mark.parametrize("scorer", [WordNGramScorer, TokenNGramScorer, NeuralScorer])
def test_what_is_no_path_of_a_language_model_is_refused(scorer, lm):
    """A decoder YAML with ``lm:`` and nothing after it, or a number without quotes."""
    with pytest.raises(UserError, match=f"lm={re.escape(repr(lm))} must be the path of a .*, such as "):
        scorer(lm, CHARACTERS)


def test_a_rare_token_may_be_missing_in_a_token_model():
    lm = NGramLM.estimate([" ".join("the▁quick▁brown▁fox▁jumps▁over")], order=2)
    tokens = ["<blank>", "▁", *"abcdefghijklmnopqrstuvwxyz"]
    scorer = TokenNGramScorer(lm, tokens)
    unknown = math.log(10) * float(lm.unigrams[0])
    assert float(scorer.unigrams[tokens.index("z")]) * math.log(10) == pytest.approx(unknown, abs=1e-6)


def test_an_unknown_word_is_charged_when_its_letters_begin_no_known_one():
    """Not only at its end: until then it would push known words out of a small beam."""
    lm = NGramLM.estimate(["ab ab", "ab abab"], order=2)
    scorer = WordNGramScorer(lm, CHARACTERS, unknown_penalty=-50.0)
    state = scorer.start(1)
    for token, points in ((2, 0), (3, 0), (3, -50), (2, 0)):  # "ab" goes on, "abb" does not
        assert float(scorer.score(state)[0, 0, token]) == pytest.approx(points, abs=10)
        state = scorer.advance(state, torch.tensor([[0]]), torch.tensor([[token]]))
    assert float(scorer.score(state)[0, 0, 1]) == 0  # it has been charged
    state = scorer.advance(state, torch.tensor([[0]]), torch.tensor([[1]]))
    assert float(scorer.score(state)[0, 0, 3]) == pytest.approx(-50, abs=10)  # nothing begins with b


def test_a_model_that_the_tokens_write_in_one_piece():
    """Pieces that are whole words, and none that goes on."""
    lm = NGramLM.estimate(["ab ab", "ab b"], order=2)
    pieces = ["<blank>", "▁ab", "▁b"]
    log_probs = torch.tensor([[[0.1, 0.5, 0.4]]]).log()
    found = CTCBeamSearch(8, scorers=[(WordNGramScorer(lm, pieces), 1.0)])(log_probs, torch.tensor([1]))[0]
    assert {tuple(h.tokens): h.score for h in found} == {
        tokens: pytest.approx(math.log(p) + math.log(10) * lm.score(text), abs=1e-5)
        for tokens, p, text in (((), 0.1, ""), ((1,), 0.5, "ab"), ((2,), 0.4, "b"))
    }


def test_letters_are_charged_ahead_and_the_words_end_gives_it_back():
    lm = NGramLM.estimate(["ab ab ab ab ba", "ab aa ab ba", "ba ab"], order=1)
    scorer = WordNGramScorer(lm, CHARACTERS, unknown_penalty=-3.0)
    chance = {word: math.log(10) * float(lm.unigrams[lm.ids[word]]) for word in ("ab", "aa", "ba")}
    state = scorer.start(1)
    parents, total, points = torch.zeros(1, 1, dtype=torch.long), 0.0, []
    for token in map(CHARACTERS.index, "aa▁"):
        points.append(scorer.score(state)[0, 0])
        total += float(points[-1][token])
        state = scorer.advance(state, parents, torch.tensor([[token]]))
    assert float(points[0][3]) == pytest.approx(
        chance["ba"] - chance["ab"], abs=1e-3
    )  # "b" begins no better word
    assert float(points[0][2]) == 0.0  # "a" begins the best one
    assert float(points[1][2]) == pytest.approx(chance["aa"] - chance["ab"], abs=1e-3)
    assert total == pytest.approx(chance["aa"], abs=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_a_large_penalty_makes_the_models_words_the_lexicon(seed):
    lm = NGramLM.estimate(LINES, order=2)
    log_probs = torch.randn(1, 12, len(PIECES), generator=torch.Generator().manual_seed(seed)).log_softmax(-1)
    free, bound = (
        CTCBeamSearch(16, scorers=[(WordNGramScorer(lm, PIECES, penalty), 0.5)])(
            log_probs, torch.tensor([12])
        )[0][0]
        for penalty in (0.0, -1000.0)
    )
    words = text_of(bound.tokens, PIECES).split()
    assert words and all(word in lm.ids for word in words)
    assert bound.score <= free.score + 1e-6


def test_a_table_too_large_for_the_memory_is_refused(monkeypatch):
    monkeypatch.setattr(f"{WordNGramScorer.__module__}.LARGEST_TABLE", 2 * 6 * len(CHARACTERS))
    lm = NGramLM.estimate(["ab a", "ba b"], order=2)  # beginnings: "", a, ab, b, ba, and one row more
    WordNGramScorer(lm, CHARACTERS)
    lm = NGramLM.estimate(["ab a", "ba bb"], order=2)
    with pytest.raises(
        UserError,
        match="words of the language model with 4 tokens take a table of .* take a model of fewer words",
    ):
        WordNGramScorer(lm, CHARACTERS)
