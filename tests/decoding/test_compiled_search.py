from __future__ import annotations

import shutil

import pytest
import torch

from src.decoding import CTCBeamSearch, Hotwords, LengthBonus
from src.lm import LSTMLanguageModel, NeuralScorer, NGramLM, TokenNGramScorer, WordNGramScorer
from src.utils.errors import UserError

TOKENS = ["<blank>", "▁", "a", "b"]
LINES = ["ab a", "ab ab b", "a ab", "b a ab", "ba", "ab ba a", "a", "ab a b"]


def assert_same(ours, theirs):
    for one, other in zip(ours, theirs, strict=True):
        assert [h.tokens for h in one] == [h.tokens for h in other]
        assert [h.score for h in one] == pytest.approx([h.score for h in other], abs=1e-6)
        assert [h.token_times for h in one] == [h.token_times for h in other]


def compile_with(monkeypatch, backend):
    compiled = torch.compile

    def compile(function, fullgraph, options):
        return compiled(function, fullgraph=fullgraph, backend=backend)

    monkeypatch.setattr(torch, "compile", compile)


def test_frames_with_all_scorers_can_be_captured(monkeypatch):
    compile_with(monkeypatch, "aot_eager")  # without a C++ compiler
    words, tokens = (NGramLM.estimate(lines, order=3) for lines in (LINES, [" ".join("▁abab▁")] * 3))
    scorers = [
        (WordNGramScorer(words, TOKENS), 0.5),
        (TokenNGramScorer(tokens, TOKENS), 0.2),
        (Hotwords(["ab a"], TOKENS), 1.0),
        (LengthBonus(4), 0.3),
    ]
    settings = {"scorers": scorers, "fold_sure": 0.5, "token_min_log_prob": -4.0}
    compiled, eager = CTCBeamSearch(6, compile=True, **settings), CTCBeamSearch(6, **settings)
    for seed, B in enumerate([3, 2]):  # another batch size is captured anew
        log_probs = 3 * torch.randn(B, 12 + seed, 4, generator=torch.Generator().manual_seed(seed))
        log_probs, lengths = log_probs.log_softmax(-1), torch.tensor([12, 7, 0])[:B]
        assert_same(compiled(log_probs, lengths), eager(log_probs, lengths))


@pytest.mark.skipif(shutil.which("g++") is None, reason="compiling on a CPU needs a C++ compiler")
def test_a_compiled_search_finds_the_same():
    log_probs = torch.randn(2, 9, 5, generator=torch.Generator().manual_seed(0)).log_softmax(-1)
    lengths = torch.tensor([9, 6])
    assert_same(CTCBeamSearch(4, compile=True)(log_probs, lengths), CTCBeamSearch(4)(log_probs, lengths))


def test_that_it_compiles_is_said_once(monkeypatch, capsys):
    compile_with(monkeypatch, "eager")
    search = CTCBeamSearch(4, compile=True)
    for _ in range(3):
        search(torch.randn(2, 5, 4).log_softmax(-1), torch.tensor([5, 5]))
    assert capsys.readouterr().err.count("compiling the search") == 1


def test_batches_of_all_sizes_and_lengths_are_captured_three_times_at_most(monkeypatch):
    """As they come from one search: some, others, one utterance."""
    captured = []

    def backend(graph, example_inputs):
        captured.append(graph)
        return graph.forward

    compile_with(monkeypatch, backend)
    torch.compiler.reset()
    search = CTCBeamSearch(4, compile=True, fold_sure=0.9)
    for B, T, is_full in [
        (4, 9, True),
        (4, 6, False),
        (8, 7, True),
        (3, 5, False),
        (1, 9, True),
        (1, 4, True),
    ]:
        log_probs = torch.randn(B, T, 5, generator=torch.Generator().manual_seed(B)).log_softmax(-1)
        lengths = torch.full((B,), T) if is_full else torch.arange(B).clamp(max=T)
        search(log_probs, lengths)
    assert len(captured) <= 3


def test_more_searches_than_can_be_compiled_are_said_in_a_line(monkeypatch):
    compile_with(monkeypatch, "eager")
    torch.compiler.reset()
    with torch._dynamo.config.patch(recompile_limit=1):
        CTCBeamSearch(4, compile=True)(torch.randn(2, 5, 4).log_softmax(-1), torch.tensor([5, 5]))
        other = CTCBeamSearch(4, compile=True, scorers=[(LengthBonus(4), 0.3)])
        with pytest.raises(UserError, match="compile=true: .*; search without it$"):
            other(torch.randn(2, 5, 4).log_softmax(-1), torch.tensor([5, 5]))
    torch.compiler.reset()


def test_a_vocabulary_that_does_not_fit_is_said_when_compiled_too(monkeypatch):
    compile_with(monkeypatch, "aot_eager")
    torch.compiler.reset()
    search = CTCBeamSearch(4, compile=True, scorers=[(LengthBonus(7), 1.0)])
    with pytest.raises(UserError, match="vocabulary=7 must be the model's, 4"):
        search(torch.randn(1, 3, 4).log_softmax(-1), torch.tensor([3]))


def test_what_cannot_be_compiled_is_said_in_a_line():
    lm = LSTMLanguageModel(vocab_size=4, dim=8, num_layers=1, dropout=0.0)
    search = CTCBeamSearch(4, compile=True, scorers=[(NeuralScorer(lm, TOKENS), 0.5)])
    with pytest.raises(UserError, match="compile=true: .*; search without it$"):
        search(torch.randn(1, 5, 4).log_softmax(-1), torch.tensor([5]))
