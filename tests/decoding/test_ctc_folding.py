"""Frames that are folded: what comes out is the search in posteriors where their other tokens are impossible."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from src.decoding import CTCBeamSearch, Hotwords, LengthBonus, ctc_beam
from src.decoding.ctc_folding import Folding
from src.decoding.ctc_frames import Frames
from src.decoding.ctc_prefixes import Prefixes
from src.decoding.prefix_names import EMPTY, longer, shorter
from src.lm import LSTMLanguageModel, NeuralScorer, NGramLM, TokenNGramScorer, WordNGramScorer

LETTERS = ["<blank>", "▁", "a", "b"]
PIECES = ["<blank>", "▁", "▁a", "b", "ab"]
LINES = ["ab a", "ab ab b", "a ab", "b a ab", "ba", "ab ba a", "a", "ab a b", "abba", "aab ab"]


@pytest.fixture(autouse=True, scope="module")
def only_what_the_beam_kept():
    """Which of two texts is more probable in all is asked of the posteriors as they were, whatever is folded."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ctc_beam, "log_ratio", lambda *_: -math.inf)
        yield


def log_probs_of(
    seed: int, B: int, T: int, V: int, share: float = 0.5, sharpness: float = 1.5
) -> torch.Tensor:
    """Random posteriors, in which about this share of the frames is sure of a random token (the blank as often as
    all others together) with 95 to 100 %."""
    generator = torch.Generator().manual_seed(seed)
    probs = (sharpness * torch.randn(B, T, V, generator=generator, dtype=torch.float64)).softmax(-1)
    probs = 0.9 * probs / probs.amax(-1, keepdim=True).clamp_min(0.9)  # nothing else is that sure
    token = torch.randint(1, V, (B, T), generator=generator)
    token = torch.where(torch.rand(B, T, generator=generator) < 0.5, 0, token)
    height = 0.95 + 0.05 * torch.rand(B, T, 1, generator=generator, dtype=torch.float64)
    sure = (1 - height) / (V - 1) * torch.ones(V).double()
    sure = sure.scatter(2, token.unsqueeze(2), height)
    is_sure = torch.rand(B, T, 1, generator=generator) < share
    return torch.where(is_sure, sure, probs / probs.sum(-1, keepdim=True)).log()


def certain(log_probs: torch.Tensor, threshold: float) -> torch.Tensor:
    """The same posteriors, where a token that is at least that probable is the only possible one."""
    value, token = log_probs.max(-1, keepdim=True)
    others = torch.arange(log_probs.size(-1)) != token
    return log_probs.masked_fill((value >= math.log(threshold)) & others, float("-inf"))


def assert_same(ours, theirs):
    for found, expected in zip(ours, theirs, strict=True):
        assert [h.tokens for h in found] == [h.tokens for h in expected]
        assert [h.score for h in found] == pytest.approx([h.score for h in expected], abs=1e-6)
        for one, other in zip(found, expected, strict=True):
            assert one.parts == pytest.approx(other.parts, abs=1e-6)
            assert one.token_times == other.token_times
            assert one.token_log_probs == pytest.approx(other.token_log_probs, abs=1e-6)


def all_scorers(tokens):
    V = len(tokens)
    words = NGramLM.estimate(LINES, order=3)
    torch.manual_seed(0)
    lstm = LSTMLanguageModel(vocab_size=V, dim=8, num_layers=1, dropout=0.0)
    spelled = NGramLM.estimate([" ".join(tokens[1:]), " ".join(reversed(tokens[1:]))] * 3, order=3)
    return {
        "none": [],
        "words": [(WordNGramScorer(words, tokens), 0.5)],
        "tokens": [(TokenNGramScorer(spelled, tokens), 0.7)],
        "hotwords": [(Hotwords(["ab a", "b"], tokens), 1.0)],
        "lstm": [(NeuralScorer(lstm, tokens), 0.6)],
        "several": [
            (WordNGramScorer(words, tokens), 0.5),
            (Hotwords(["ab"], tokens), 1.0),
            (LengthBonus(V), 0.3),
            (LengthBonus(V), 0.0),
        ],
    }


SCORERS = {
    (name, kind): scorers
    for name, tokens in (("letters", LETTERS), ("pieces", PIECES))
    for kind, scorers in all_scorers(tokens).items()
}


@given(
    seed=st.integers(0, 10_000),
    beam_size=st.integers(1, 9),
    case=st.sampled_from(sorted(SCORERS)),
    share=st.floats(0.2, 1.0),
)
@settings(max_examples=150, deadline=None)
def test_folding_is_the_search_in_certain_frames(seed, beam_size, case, share):
    """Doubled letters, runs at both ends, sure blanks in them, and runs of more tokens than are added at once."""
    V = len(LETTERS if case[0] == "letters" else PIECES)
    log_probs, lengths = log_probs_of(seed, 3, 20, V, share), torch.tensor([20, 13, 0])
    folding = CTCBeamSearch(beam_size, scorers=SCORERS[case], fold_sure=0.94)(log_probs, lengths)
    assert_same(folding, CTCBeamSearch(beam_size, scorers=SCORERS[case])(certain(log_probs, 0.94), lengths))


@pytest.mark.parametrize("threshold", [0.05, 0.3, 0.5, 0.8])
def test_any_threshold_will_do(threshold):
    """Also one that two tokens of a frame reach: the more probable one counts."""
    log_probs, lengths = (
        3 * torch.randn(8, 14, 4, generator=torch.Generator().manual_seed(1)),
        torch.full((8,), 14),
    )
    log_probs = log_probs.double().log_softmax(-1)
    folding = CTCBeamSearch(5, fold_sure=threshold)(log_probs, lengths)
    assert_same(folding, CTCBeamSearch(5)(certain(log_probs, threshold), lengths))


@pytest.mark.parametrize("kind", ["none", "words", "several"])
@pytest.mark.parametrize("size", [1, 4, 7])
def test_runs_may_be_cut_by_pieces(kind, size):
    log_probs, lengths = log_probs_of(3, 4, 40, 4, share=0.8), torch.tensor([40, 31, 12, 0])
    search = CTCBeamSearch(6, scorers=SCORERS["letters", kind], fold_sure=0.94)
    beam = search.start(4)
    for start in range(0, 40, size):
        search.advance(beam, log_probs[:, start : start + size], (lengths - start).clamp(0, size))
    assert_same(search.finish(beam), search(log_probs, lengths))


def one_hot(path: list[int], V: int) -> torch.Tensor:
    return torch.nn.functional.one_hot(torch.tensor([path]), V).double().log()


@pytest.mark.parametrize("kind", ["none", "words"])
def test_a_text_that_is_sure_from_its_first_frame_to_its_last(kind):
    path = [2, 2, 0, 2, 3, 3, 0, 0, 3, 1, 2, 0, 1, 1, 0, 3]  # a a b b _ a _ b, all in one run
    search = CTCBeamSearch(4, scorers=SCORERS["letters", kind], fold_sure=0.9)
    (best,) = search(one_hot(path, 4), torch.tensor([16]))[0]
    assert best.tokens == [2, 2, 3, 3, 1, 2, 1, 3]
    assert best.token_times == [0, 3, 4, 8, 9, 10, 12, 15]
    assert best.parts["acoustic"] == 0.0


def test_a_sure_token_may_be_the_last_one_again_or_a_new_one():
    """Maybe "a", surely "a", surely "b": one text. Surely "a", maybe "a" again or a blank, surely "a": two."""
    b = torch.tensor([[0.0, 0.0, 1.0]]).double()
    for path, expected in (
        ([[0.6, 0.4, 0.0], [0.0, 1.0, 0.0]], {(1, 2): 1.0}),
        ([[0.0, 1.0, 0.0], [0.6, 0.4, 0.0], [0.0, 1.0, 0.0]], {(1, 1, 2): 0.6, (1, 2): 0.4}),
    ):
        log_probs = torch.cat([torch.tensor(path).double(), b])[None].log()
        found = CTCBeamSearch(4, fold_sure=0.9)(log_probs, torch.tensor([len(log_probs[0])]))[0]
        assert {tuple(h.tokens): pytest.approx(math.exp(h.score)) for h in found} == expected


def test_only_the_first_frame_of_a_run_is_a_step():
    frames = one_hot([0, 0, 2, 2, 3, 0, 1, 2, 2, 3, 2, 3, 2, 0], 4)
    inside = torch.ones(1, 14, dtype=torch.bool)
    assert Folding(frames, inside, blank=0, threshold=-0.1).times.tolist() == [[2]]
    starts = torch.tensor([False, True, False, False])
    assert Folding(frames, inside, 0, -0.1, longest=3, needs_step=starts).times.tolist() == [[2, 6, 11]]


def test_names_are_those_of_prefixes_that_grew_token_by_token():
    """Or equal texts would not be known as such when the folded tokens are in another place of each."""
    frames = Frames(
        one_hot([1, 2, 0, 2, 3, 0], 4), torch.tensor([6]), 0, before=torch.tensor([0]), fold_sure=0.9
    )
    prefixes = Prefixes.empty(1, 2, 0, torch.device("cpu")).after(frames.folded_first)
    (frame,) = next(frames.blocks(None)).frames()
    name = prefixes.after(frame.folded).name[0, 0]
    expected = torch.tensor(EMPTY)
    for token in (2, 2, 3):  # the first one comes with the step
        expected = longer(expected, torch.tensor(token))
    assert name == expected
    assert shorter(longer(name, torch.tensor(1)), torch.tensor(1)) == name


def test_a_sure_token_may_begin_below_the_limit_too():
    log_probs, lengths = log_probs_of(5, 2, 20, 4), torch.tensor([20, 20])
    limits = {"token_min_log_prob": math.log(0.97), "token_top_k": 2}
    folding = CTCBeamSearch(5, fold_sure=0.94, **limits)(log_probs, lengths)
    assert_same(folding, CTCBeamSearch(5, **limits)(certain(log_probs, 0.94), lengths))
