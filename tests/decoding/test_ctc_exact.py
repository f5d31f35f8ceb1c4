from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given, settings
from hypothesis import strategies as st
from reference.bigram import Bigram

from src.decoding import CTCBeamSearch, CTCGreedySearch, Hypothesis, LengthBonus, ctc_beam, ctc_exact
from src.decoding.ctc_exact import log_ratio


def posteriors(seed: int, *shape: int, sharpness: float = 1.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (sharpness * torch.randn(*shape, generator=generator).double()).log_softmax(-1)


def like_a_models(seed: int, frames: int, V: int = 29, unsure: float = 0.2) -> torch.Tensor:
    """[T, V]: mostly one token or the blank is sure; in some frames two or three are nearly alike."""
    generator = torch.Generator().manual_seed(seed)
    best = torch.randint(1, V, (frames, 1), generator=generator)
    best[torch.rand(frames, generator=generator) < 0.6] = 0
    height = torch.where(torch.rand(frames, 1, generator=generator) < unsure, 3.0, 12.0)
    logits = 1.5 * torch.randn(frames, V, generator=generator)
    return logits.scatter_add(1, best, height).double().log_softmax(-1)


def log_p(log_probs: torch.Tensor, tokens: list[int], blank: int = 0) -> float:
    """log_probs [T, V]: log P of the tokens over all alignments."""
    if not len(log_probs):
        return 0.0 if not tokens else -math.inf
    sizes = torch.tensor(len(log_probs)), torch.tensor(len(tokens))
    target = torch.tensor(tokens, dtype=torch.long)
    return -F.ctc_loss(log_probs.double(), target, *sizes, blank=blank, reduction="sum").item()


def text(tokens: list[int], times: list[int]) -> Hypothesis:
    return Hypothesis(tokens, 0.0, token_times=times)


@pytest.mark.parametrize("sharpness", [0.1, 1.0, 5.0])
@pytest.mark.parametrize("blank", [0, 3])
def test_short_texts_are_compared_exactly(sharpness, blank):
    log_probs = posteriors(0, 9, 4, sharpness=sharpness)
    doubled, other, nothing = text([1, 1, 2], [0, 4, 5]), text([1, 2], [0, 5]), text([], [])
    for one in (doubled, other, nothing):
        for two in (doubled, other, nothing):
            expected = log_p(log_probs, one.tokens, blank) - log_p(log_probs, two.tokens, blank)
            assert log_ratio(log_probs, one, two, blank) == pytest.approx(expected, abs=1e-5)


def test_impossible_texts_win_nothing():
    log_probs = torch.tensor([[0.5, 0.5, 0.0]] * 3).log()
    possible, impossible = text([1], [0]), text([2], [0])
    assert log_ratio(log_probs, impossible, possible) == -math.inf
    assert log_ratio(log_probs, possible, impossible) == math.inf
    assert math.isnan(log_ratio(log_probs, impossible, text([2, 1], [0, 1])))


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("longest", [1000, 10])
def test_long_texts_are_compared_where_they_differ(seed, longest, monkeypatch):
    """To the frame at which a stretch is cut for its length, both texts are held: then the ratio is less precise."""
    lengths = []
    loss = F.ctc_loss
    monkeypatch.setattr(ctc_exact, "LONGEST", longest)
    monkeypatch.setattr(
        ctc_exact.F, "ctc_loss", lambda *args, **kwargs: lengths.append(len(args[0])) or loss(*args, **kwargs)
    )
    log_probs = like_a_models(seed, 300)
    written = CTCGreedySearch()(log_probs[None], torch.tensor([300]))[0][0]
    tokens, times = list(written.tokens), list(written.token_times)
    for place in (10, 12, 60, 100):
        tokens[place] = 1 + tokens[place] % 28
    del tokens[40], times[40]
    got = log_ratio(log_probs, text(tokens, times), written)
    monkeypatch.undo()
    expected = log_p(log_probs, tokens) - log_p(log_probs, written.tokens)
    assert got == pytest.approx(expected, abs=1e-3 if longest == 1000 else 3.0)
    assert sum(lengths) < 2 * 200 and max(lengths) <= longest


@given(seed=st.integers(0, 1000), needed=st.floats(-3, 3), kept=st.floats(0.01, 1.0))
@settings(max_examples=50, deadline=None)
def test_a_ratio_that_is_not_needed_is_at_least_the_true_one(seed, needed, kept):
    """``other`` brings the probability of the alignments that a beam kept, a part of all."""
    log_probs = posteriors(seed, 9, 4)
    one, other = text([1, 1, 2], [0, 4, 5]), text([3, 2], [1, 6])
    expected = log_p(log_probs, one.tokens) - log_p(log_probs, other.tokens)
    other.parts["acoustic"] = log_p(log_probs, other.tokens) + math.log(kept)
    got = log_ratio(log_probs, one, other, needed=needed)
    assert got == pytest.approx(expected, abs=1e-5) or expected - 1e-5 <= got <= needed


def test_improbable_beside_what_was_kept_is_half_the_work(monkeypatch):
    log_probs, calls, loss = posteriors(0, 9, 4), [], F.ctc_loss
    monkeypatch.setattr(
        ctc_exact.F, "ctc_loss", lambda *args, **kwargs: calls.append(1) or loss(*args, **kwargs)
    )
    one, other = text([1, 1, 2], [0, 4, 5]), text([3, 2], [1, 6])
    other.parts["acoustic"] = 0.0
    assert log_ratio(log_probs, one, other, needed=-1.0) == pytest.approx(
        log_p(log_probs, one.tokens), abs=1e-5
    )
    assert len(calls) == 2  # one's, and the line before
    log_ratio(log_probs, one, other)
    assert len(calls) == 4


@pytest.mark.parametrize("seed,bonus", [(19, 0.3), (30, 0.3), (11, 0.0)])
def test_a_text_whose_alignments_were_not_kept_wins(seed, bonus, monkeypatch):
    """By the alignments that a beam keeps greedy's text is second, by all of them it is first."""
    log_probs, lengths = like_a_models(seed, 60, unsure=0.8)[None], torch.tensor([60])
    written = CTCGreedySearch()(log_probs, lengths)[0][0].tokens
    search = CTCBeamSearch(8, scorers=[(LengthBonus(29), bonus)])
    best = search(log_probs, lengths)[0][0]
    monkeypatch.setattr(ctc_beam, "log_ratio", lambda *_: -math.inf)
    kept = search(log_probs, lengths)[0][0]
    scores = [log_p(log_probs[0], tokens) + bonus * len(tokens) for tokens in (best.tokens, kept.tokens)]
    assert best.tokens == written != kept.tokens and scores[0] > scores[1] + 0.03
    assert kept.score < best.score <= scores[0]


@given(
    seed=st.integers(0, 10_000),
    V=st.sampled_from([5, 40]),
    beam_size=st.integers(1, 6),
    sharpness=st.floats(0.0, 6.0),
    limits=st.sampled_from(
        [{}, {"token_min_log_prob": -1.0}, {"token_top_k": 1}, {"token_top_k": 2}, {"fold_sure": 0.6}]
    ),
    weight=st.sampled_from([0.0, 0.2, 1.5]),
    size=st.sampled_from([30, 7]),
)
# Numbers that only float64 tells apart.
@example(seed=4015, V=5, beam_size=1, sharpness=1e-7, limits={}, weight=0.0, size=30)
@settings(max_examples=150, deadline=None)
def test_over_all_alignments_the_beam_never_loses_to_greedy(
    seed, V, beam_size, sharpness, limits, weight, size
):
    """Nor with limits, which say what is looked for, not how probable that is."""
    lengths = torch.tensor([30, 17, 0])
    log_probs = posteriors(seed, 3, 30, V, sharpness=sharpness)
    bigram = Bigram(posteriors(seed, V + 1, V, sharpness=3.0))
    search = CTCBeamSearch(beam_size, scorers=[(bigram, weight)], **limits)
    beam = search.start(3)
    for start in range(0, 30, size):
        piece = log_probs[:, start : start + size].clone()
        search.advance(beam, piece, (lengths - start).clamp(0, piece.size(1)))
        piece.zero_()  # its owner may write over it
    for row, length, (written,), found in zip(
        log_probs, lengths, CTCGreedySearch()(log_probs, lengths), search.finish(beam), strict=True
    ):
        best, row = found[0], row[:length]
        scores = [log_p(row, h.tokens) + weight * bigram.of(h.tokens) for h in (best, written)]
        assert scores[0] >= scores[1] - 1e-3
        assert best.score <= scores[0] + 1e-3
        assert sum(best.parts.values()) == pytest.approx(best.score, abs=1e-9)
        assert [h.score for h in found] == sorted((h.score for h in found), reverse=True)
