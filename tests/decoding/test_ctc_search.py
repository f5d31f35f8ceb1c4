from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.bigram import Bigram
from reference.ctc_brute_force import text_probabilities

from src.decoding import CTCBeamSearch, CTCGreedySearch, LengthBonus
from src.decoding.ctc_frames import Frames
from src.recognizer import Recognizer
from src.text_encoder import CharTextEncoder
from src.utils.errors import UserError


def random_log_probs(seed: int, *shape: int, sharpness: float = 1.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(*shape, generator=generator) * sharpness).log_softmax(-1)


def ctc_loss(log_probs: torch.Tensor, tokens: list[int]) -> float:
    """log_probs [T, V]: minus log P of the tokens over all alignments."""
    sizes = torch.tensor(len(log_probs)), torch.tensor(len(tokens))
    return F.ctc_loss(
        log_probs.double(), torch.tensor(tokens, dtype=torch.long), *sizes, reduction="sum"
    ).item()


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("T,V", [(1, 3), (3, 4), (5, 3), (6, 2)])
def test_unpruned_beam_is_brute_force(seed, T, V):
    log_probs = random_log_probs(seed, 2, T, V)
    results = CTCBeamSearch(beam_size=V**T)(log_probs, torch.tensor([T, T]))
    for b, hypotheses in enumerate(results):
        truth = text_probabilities(log_probs[b].double().tolist())
        assert {tuple(h.tokens) for h in hypotheses} == set(truth)
        for h in hypotheses:
            assert h.score == pytest.approx(truth[tuple(h.tokens)], abs=1e-6)
        ranking = sorted(truth.values(), reverse=True)
        assert [h.score for h in hypotheses] == pytest.approx(ranking, abs=1e-6)


def test_blank_may_be_any_token():
    log_probs = random_log_probs(0, 1, 4, 3)
    hypotheses = CTCBeamSearch(beam_size=100, blank=2)(log_probs, torch.tensor([4]))[0]
    truth = text_probabilities(log_probs[0].double().tolist(), blank=2)
    assert {tuple(h.tokens): pytest.approx(h.score) for h in hypotheses} == truth


@given(seed=st.integers(0, 10_000), beam_size=st.integers(1, 12), sharpness=st.floats(0.1, 6.0))
@settings(max_examples=40, deadline=None)
def test_narrow_beam_never_overcounts_and_holds_distinct_prefixes(seed, beam_size, sharpness):
    log_probs = random_log_probs(seed, 1, 12, 4, sharpness=sharpness)
    hypotheses = CTCBeamSearch(beam_size=beam_size)(log_probs, torch.tensor([12]))[0]
    texts = [tuple(h.tokens) for h in hypotheses]
    assert len(set(texts)) == len(texts) <= beam_size
    for h in hypotheses:
        assert h.score <= -ctc_loss(log_probs[0], h.tokens) + 1e-6
    assert [h.score for h in hypotheses] == sorted((h.score for h in hypotheses), reverse=True)


def test_score_of_a_wide_beam_is_minus_the_loss_on_long_flat_audio():
    log_probs = random_log_probs(1, 1, 1500, 5, sharpness=0.05)
    best = CTCBeamSearch(beam_size=8)(log_probs, torch.tensor([1500]))[0][0]
    assert math.isfinite(best.score) and best.score <= -ctc_loss(log_probs[0], best.tokens) + 1e-6
    log_probs = random_log_probs(1, 1, 8, 3, sharpness=4.0)
    best = CTCBeamSearch(beam_size=500)(log_probs, torch.tensor([8]))[0][0]
    assert best.score == pytest.approx(-ctc_loss(log_probs[0], best.tokens), abs=1e-6)


def one_hot(path: list[int], V: int, confidence: float = 0.97) -> torch.Tensor:
    probs = torch.full((1, len(path), V), (1 - confidence) / (V - 1))
    probs[0, torch.arange(len(path)), torch.tensor(path)] = confidence
    return probs.log()


@pytest.mark.parametrize("search", [CTCGreedySearch(), CTCBeamSearch(beam_size=8)])
def test_doubled_letters_and_their_times(search):
    # h e l l o with a blank between the two l's, and an l held for two frames
    path = [1, 0, 2, 3, 3, 0, 3, 4, 4, 0]
    best = search(one_hot(path, 5), torch.tensor([10]))[0][0]
    assert best.tokens == [1, 2, 3, 3, 4]
    assert best.token_times == [0, 2, 3, 6, 7]
    assert best.token_log_probs == pytest.approx([math.log(0.97)] * 5, abs=1e-5)


def test_greedy_score_is_that_of_its_alignment():
    log_probs = random_log_probs(3, 1, 9, 4)
    best = CTCGreedySearch()(log_probs, torch.tensor([9]))[0][0]
    assert best.score == pytest.approx(float(log_probs.max(-1).values.sum()), abs=1e-5)


@pytest.mark.parametrize(
    "search", [CTCGreedySearch(), CTCBeamSearch(beam_size=6), CTCBeamSearch(beam_size=6, token_top_k=3)]
)
def test_result_does_not_depend_on_the_batch_or_its_padding(search):
    lengths = torch.tensor([7, 0, 20, 1, 13])
    log_probs = random_log_probs(4, 5, 25, 6, sharpness=2.0)
    together = search(log_probs, lengths)
    for b, length in enumerate(lengths.tolist()):
        alone = search(log_probs[b : b + 1, :length], lengths[b : b + 1])[0]
        assert [h.tokens for h in alone] == [h.tokens for h in together[b]]
        assert [h.score for h in alone] == pytest.approx([h.score for h in together[b]], abs=1e-9)
        assert [h.token_times for h in alone] == [h.token_times for h in together[b]]


@pytest.mark.parametrize("seed", range(40))
def test_exact_ties_do_not_turn_over_in_padding(seed):
    """Whole numbers make several texts equally probable: what is beyond the end must not choose among them."""
    log_probs = torch.randn(1, 1, 6, generator=torch.Generator().manual_seed(seed)).round().log_softmax(-1)
    alone, padded = (
        [h.tokens for h in CTCBeamSearch(3)(F.pad(log_probs, (0, 0, 0, more)), torch.tensor([1]))[0]]
        for more in (0, 11)
    )
    assert alone == padded


@pytest.mark.parametrize("seed", range(3))
def test_beam_with_scorers_is_brute_force(seed):
    T, V = 5, 3
    log_probs = random_log_probs(seed, 1, T, V)
    bigram = Bigram(random_log_probs(seed + 100, V + 1, V).double())
    scorers = [(bigram, 0.7), (LengthBonus(V), 0.5)]
    hypotheses = CTCBeamSearch(beam_size=300, scorers=scorers)(log_probs, torch.tensor([T]))[0]
    acoustic = text_probabilities(log_probs[0].double().tolist())
    truth = {text: p + 0.7 * bigram.of(text) + 0.5 * len(text) for text, p in acoustic.items()}
    assert {tuple(h.tokens): pytest.approx(h.score, abs=1e-6) for h in hypotheses} == truth
    best = max(truth, key=truth.get)
    assert tuple(hypotheses[0].tokens) == best
    assert hypotheses[0].parts["acoustic"] == pytest.approx(acoustic[best], abs=1e-6)
    assert sum(hypotheses[0].parts.values()) == pytest.approx(hypotheses[0].score)


@given(
    seed=st.integers(0, 10_000),
    V=st.sampled_from([5, 40]),
    beam_size=st.integers(1, 6),
    sharpness=st.floats(0.0, 4.0),
    levels=st.sampled_from([None, 2]),
    limits=st.sampled_from(
        [{}, {"token_min_log_prob": -1.0}, {"token_top_k": 1}, {"token_top_k": 2}, {"fold_sure": 0.6}]
    ),
    fused=st.booleans(),
    size=st.sampled_from([30, 7]),
)
@settings(max_examples=150, deadline=None)
def test_the_beam_never_loses_to_greedy(seed, V, beam_size, sharpness, levels, limits, fused, size):
    """Not even a beam of one prefix, with ties, whatever the scorers say of greedy's text, and in pieces."""
    lengths = torch.tensor([30, 17, 0])
    logits = sharpness * torch.randn(3, 30, V, generator=torch.Generator().manual_seed(seed))
    log_probs = (logits if levels is None else (levels * logits).round() / levels).log_softmax(-1)
    bigram = Bigram(random_log_probs(seed, V + 1, V, sharpness=3.0).double())
    search = CTCBeamSearch(beam_size, scorers=[(bigram, 1.5)] if fused else [], **limits)
    beam = search.start(3)
    for start in range(0, 30, size):
        search.advance(
            beam, log_probs[:, start : start + size], (lengths - start).clamp(0, min(size, 30 - start))
        )
    for greedy, found in zip(CTCGreedySearch()(log_probs, lengths), search.finish(beam), strict=True):
        written = greedy[0].score + 1.5 * fused * bigram.of(greedy[0].tokens)
        assert found[0].score >= written - 1e-5
        assert len(found) <= beam_size


@pytest.mark.parametrize("limits", [{"shortlist": 3}, {"token_top_k": 7}])
def test_among_equal_tokens_the_best_paths_is_listed(limits):
    """Of so many equals ``topk`` takes any; ``argmax`` takes one."""
    log_probs = F.pad(torch.zeros(1, 2, 199), (1, 0), value=-1.0).log_softmax(-1)
    frames = Frames(log_probs, torch.tensor([2]), blank=0, before=torch.tensor([0]), **limits)
    assert frames.tokens[0, 0, frames.best.column[0, 0]] == log_probs[0, 0].argmax()


def test_token_limits_prune_and_the_rest_stays_exact():
    log_probs = random_log_probs(8, 1, 4, 4)
    top = CTCBeamSearch(beam_size=300, token_top_k=4)(log_probs, torch.tensor([4]))[0]
    full = CTCBeamSearch(beam_size=300)(log_probs, torch.tensor([4]))[0]
    assert [(h.tokens, h.score) for h in top] == [(h.tokens, h.score) for h in full]


def test_impossible_tokens_never_surface():
    log_probs = torch.tensor([[[0.5, 0.5, 0.0], [0.5, 0.5, 0.0]]]).log()
    for h in CTCBeamSearch(beam_size=10)(log_probs, torch.tensor([2]))[0]:
        assert 2 not in h.tokens and math.isfinite(h.score)


@pytest.mark.parametrize("search", [CTCGreedySearch(), CTCBeamSearch(beam_size=8)])
def test_a_tokens_confidence_is_that_of_its_own_frame(search):
    path = [0, 1, 1, 0, 2, 3, 0, 3]
    probs = torch.full((1, 8, 4), 0.02)
    for t, token in enumerate(path):
        probs[0, t, token] = 0.9 - 0.01 * t
    log_probs = (probs / probs.sum(-1, keepdim=True)).log()
    best = search(log_probs, torch.tensor([8]))[0][0]
    assert best.tokens == [1, 2, 3, 3]
    assert best.token_times == [1, 4, 5, 7]
    expected = [float(log_probs[0, t, token]) for t, token in zip([1, 4, 5, 7], [1, 2, 3, 3], strict=True)]
    assert best.token_log_probs == pytest.approx(expected, abs=1e-6)


def test_a_words_confidence_is_the_geometric_mean_over_its_own_frames():
    log_probs = torch.full((1, 6, 29), 1e-6)
    for t, (token, p) in enumerate([(3, 0.9), (4, 0.5), (1, 0.99), (0, 0.6), (5, 0.8), (0, 0.7)]):
        log_probs[0, t, token] = p
    log_probs = log_probs.log()  # "ab c", a blank before the c
    model = SimpleNamespace(frame_s=0.04, search_inputs=lambda outputs: (log_probs, torch.tensor([6])))
    for search in (CTCGreedySearch(), CTCBeamSearch(beam_size=4)):
        (transcript,) = Recognizer(model, CharTextEncoder(), search).decode({}, ["clip"])
        assert transcript.text == "ab c"
        (ab, *ab_where), (c, *c_where) = transcript.words
        assert (ab, c) == ("ab", "c")
        assert ab_where == pytest.approx([0.0, 0.08, math.sqrt(0.9 * 0.5)], abs=1e-5)
        assert c_where == pytest.approx([0.16, 0.2, 0.8], abs=1e-5)


def test_the_beam_keeps_the_digits_of_float64():
    log_probs = random_log_probs(5, 1, 5, 3).double().log_softmax(-1)
    truth = text_probabilities(log_probs[0].tolist())
    for h in CTCBeamSearch(beam_size=300)(log_probs, torch.tensor([5]))[0]:
        assert h.score == pytest.approx(truth[tuple(h.tokens)], abs=1e-12)


def test_a_token_exactly_at_the_limit_may_extend():
    log_probs = torch.tensor([[[-1.0, -1.5, -1.5001]]])
    hypotheses = CTCBeamSearch(token_min_log_prob=-1.5)(log_probs, torch.tensor([1]))[0]
    assert [h.tokens for h in hypotheses] == [[], [1]]


@pytest.mark.parametrize(
    "name,values",
    [
        ("beam_size", [0, 2.5, "abc", None, True]),
        ("blank", [-1, 1.5, "abc", None]),
        ("token_top_k", [0, 1.5, "abc"]),
        ("token_min_log_prob", ["abc", float("nan"), [1]]),
        ("fold_sure", [0, 1.5, "abc", float("nan")]),
        ("compile", [1, "yes", None]),
        ("scorers", [[1], "ab", None, [[LengthBonus(3)]], [[LengthBonus(3), "much"]], [[3, 0.5]], {"a": 1}]),
    ],
)
def test_settings_out_of_range_are_named(name, values):
    searches = [CTCBeamSearch, CTCGreedySearch] if name == "blank" else [CTCBeamSearch]
    for value in values:
        for search in searches:
            with pytest.raises(UserError, match=f"({name}|the weight of .*)=.* must be "):
                search(**{name: value})


def test_what_does_not_fit_the_models_vocabulary_is_named():
    log_probs = random_log_probs(0, 1, 2, 4)
    for search in (CTCGreedySearch(blank=4), CTCBeamSearch(blank=4)):
        with pytest.raises(UserError, match="blank=4 must be below 4"):
            search(log_probs, torch.tensor([2]))
    with pytest.raises(UserError, match="LengthBonus's vocabulary=5 must be the model's, 4"):
        CTCBeamSearch(scorers=[(LengthBonus(5), 1.0)])(log_probs, torch.tensor([2]))


def test_scorers_need_a_blank_of_zero():
    """To them token 0 is no token: with another blank a real one would get no points."""
    with pytest.raises(UserError, match="blank=2 must be 0"):
        CTCBeamSearch(4, blank=2, scorers=[(LengthBonus(3), 1.0)])


class NoPoints(LengthBonus):
    """A scorer that says nothing, but is asked: with scorers the search looks at every token."""

    def __init__(self, vocab_size: int) -> None:
        super().__init__(vocab_size)
        self.points.zero_()


class Impossible:
    """A scorer that forbids everything."""

    def to(self, device):
        return self

    def start(self, batch_size):
        return torch.zeros(batch_size, 1)

    def score(self, state):
        return torch.full((*state.shape, 3), float("-inf"))

    def advance(self, state, parents, tokens):
        return torch.zeros_like(tokens, dtype=torch.float32)

    def finish(self, state):
        return torch.full_like(state, float("-inf"))


def test_a_scorer_of_weight_zero_changes_nothing():
    log_probs = torch.randn(2, 5, 3).log_softmax(-1)
    lengths = torch.tensor([5, 3])
    plain = CTCBeamSearch(4)(log_probs, lengths)
    fused = CTCBeamSearch(4, scorers=[(Impossible(), 0.0)])(log_probs, lengths)
    assert [[h.tokens for h in found] for found in plain] == [[h.tokens for h in found] for found in fused]


def test_where_nothing_is_possible_the_hypothesis_is_empty():
    nothing = torch.full((1, 2, 3), float("-inf"))
    possible = torch.randn(1, 2, 3).log_softmax(-1)
    for search, log_probs in (
        (CTCBeamSearch(4), nothing),
        (CTCBeamSearch(4, scorers=[(Impossible(), 1.0)]), possible),
    ):
        ((hypothesis,),) = search(log_probs, torch.tensor([2]))
        assert hypothesis.tokens == [] and hypothesis.score == float("-inf")


@pytest.mark.parametrize("beam_size,V", [(1, 2), (3, 6), (8, 4), (8, 40), (30, 12)])
@pytest.mark.parametrize("sharpness", [0.05, 1.0, 4.0])
def test_the_beam_loses_nothing_by_looking_at_few_extensions(beam_size, V, sharpness):
    """A scorer of no points makes the search look at every token: the same prefixes must come out."""
    log_probs = random_log_probs(beam_size + V, 4, 30, V, sharpness=sharpness)
    lengths = torch.tensor([30, 29, 7, 0])
    few = CTCBeamSearch(beam_size)(log_probs, lengths)
    every = CTCBeamSearch(beam_size, scorers=[(NoPoints(V), 1.0)])(log_probs, lengths)
    for ours, theirs in zip(few, every, strict=True):
        assert [h.tokens for h in ours] == [h.tokens for h in theirs]
        assert [h.score for h in ours] == pytest.approx([h.score for h in theirs], abs=1e-9)
        assert [h.token_times for h in ours] == [h.token_times for h in theirs]


def test_a_piece_has_no_more_frames_than_it_has():
    search = CTCBeamSearch(4)
    with pytest.raises(UserError, match=r"lengths=\[3, 5\] must be at most 4, the number of frames"):
        search.advance(search.start(2), torch.zeros(2, 4, 3).log_softmax(-1), torch.tensor([3, 5]))


@pytest.mark.parametrize("sharpness", [0.3, 3.0])
@pytest.mark.parametrize(
    "search",
    [CTCBeamSearch(6), CTCBeamSearch(6, scorers=[(LengthBonus(5), 0.4)]), CTCBeamSearch(6, fold_sure=0.5)],
)
def test_pieces_are_the_whole(search, sharpness):
    log_probs = random_log_probs(11, 3, 24, 5, sharpness=sharpness)
    lengths = torch.tensor([24, 15, 8])
    whole = search(log_probs, lengths)
    beam = search.start(3)
    left = log_probs.clone()
    for taken in torch.tensor([[5, 1, 3], [0, 4, 5], [5, 5, 0], [4, 0, 0], [5, 5, 0], [5, 0, 0]]):
        search.advance(beam, left[:, :5], taken)
        left = torch.stack([row.roll(-int(n), 0) for row, n in zip(left, taken, strict=True)])
    for ours, theirs in zip(search.finish(beam), whole, strict=True):
        assert [h.tokens for h in ours] == [h.tokens for h in theirs]
        assert [h.score for h in ours] == pytest.approx([h.score for h in theirs], abs=1e-6)
        assert [h.token_times for h in ours] == [h.token_times for h in theirs]


def test_sure_blanks_cost_their_probability_and_part_equal_tokens():
    path = [0, 1, 0, 0, 1, 2, 2, 0, 2, 0]
    log_probs = one_hot(path, 4, confidence=0.97)
    exact = CTCBeamSearch(8)(log_probs, torch.tensor([10]))[0][0]
    folding = CTCBeamSearch(8, fold_sure=0.9)(log_probs, torch.tensor([10]))[0][0]
    assert folding.tokens == exact.tokens == [1, 1, 2, 2]
    assert folding.token_times == exact.token_times == [1, 4, 5, 8]
    assert folding.score <= exact.score
    assert folding.score == pytest.approx(10 * math.log(0.97), abs=0.05)


def test_token_limits_with_scorers_prune_the_same_tokens():
    log_probs = random_log_probs(2, 2, 12, 9, sharpness=2.0)
    lengths = torch.tensor([12, 10])
    for limits in (
        {"token_top_k": 3},
        {"token_min_log_prob": -2.0},
        {"token_top_k": 4, "token_min_log_prob": -1.5},
    ):
        plain = CTCBeamSearch(5, **limits)(log_probs, lengths)
        fused = CTCBeamSearch(5, scorers=[(NoPoints(9), 1.0)], **limits)(log_probs, lengths)
        assert [[h.tokens for h in found] for found in plain] == [
            [h.tokens for h in found] for found in fused
        ]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    "limits",
    [
        {"token_top_k": 2},
        {"token_min_log_prob": -1.2},
        {"token_top_k": 3, "token_min_log_prob": -1.0},
        {"token_min_log_prob": 0.1},
    ],
)
def test_token_limits_are_brute_force_over_what_may_start(seed, limits):
    """A token may begin only in frames where it is probable enough, or the most probable; holding it on is free."""
    log_probs = random_log_probs(seed, 1, 5, 4).double().log_softmax(-1)
    frames = log_probs[0].tolist()
    ranked = [sorted(frame, reverse=True)[limits.get("token_top_k", 4) - 1] for frame in frames]
    least = [max(value, limits.get("token_min_log_prob", float("-inf"))) for value in ranked]
    least = [min(value, max(frame)) for value, frame in zip(least, frames, strict=True)]
    truth = text_probabilities(frames, may_start=lambda t, token: frames[t][token] >= least[t])
    hypotheses = CTCBeamSearch(400, **limits)(log_probs, torch.tensor([5]))[0]
    assert {tuple(h.tokens): pytest.approx(h.score, abs=1e-9) for h in hypotheses} == truth


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("V", [4, 5, 6])
@pytest.mark.parametrize("beam_size", [2, 3, 4])
def test_last_tokens_again_do_not_hide_better_extensions(beam_size, V, seed):
    """Frames alike and blanks rare: the most probable tokens are the prefixes' own last ones."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(1, 1, V, generator=generator) + torch.randn(256, 7, V, generator=generator) / 2
    logits[..., 0] -= 6
    log_probs, lengths = logits.log_softmax(-1), torch.full((256,), 7)
    few = CTCBeamSearch(beam_size)(log_probs, lengths)
    every = CTCBeamSearch(beam_size, scorers=[(NoPoints(V), 1.0)])(log_probs, lengths)
    assert [[h.tokens for h in found] for found in few] == [[h.tokens for h in found] for found in every]


def test_a_blank_exactly_at_the_threshold_is_folded():
    log_probs = torch.tensor([[[0.5, 0.5], [0.5, 0.5]]]).double().log()
    folded = CTCBeamSearch(4, fold_sure=0.5)(log_probs, torch.tensor([2]))[0]
    assert [h.tokens for h in folded] == [[]]
    assert len(CTCBeamSearch(4, fold_sure=0.501)(log_probs, torch.tensor([2]))[0]) == 2
