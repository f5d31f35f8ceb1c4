from __future__ import annotations

import math
import random
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from reference.attention_beam import beam_of_texts, ctc_of_texts
from reference.scored_texts import ScoredTexts
from torch import Tensor

from src.decoding import AttentionBeamSearch, AttentionGreedySearch, Hotwords, LengthBonus
from src.decoding.attention_greedy import token_limits
from src.lm import NGramLM, TokenNGramScorer, WordNGramScorer
from src.model import LASModel
from src.model.ctc_alignment import ctc_alignment
from src.model.encoders import MLPEncoder
from src.model.spellers import LSTMSpeller, TransformerSpeller
from src.transforms import LogMel
from src.utils.errors import UserError

D = 6
TOKENS = ["<blank>", "▁", "a", "b"]
SPELLERS = {
    "lstm": lambda V: LSTMSpeller(V, 8, num_layers=1, attention_dim=6),
    "transformer": lambda V: TransformerSpeller(V, 8, num_layers=2, num_heads=2),
}


def las(V: int, kind: str = "transformer", seed: int = 0, sure: float = 4.0) -> LASModel:
    """A model whose choices differ from step to step: its output layer is scaled up."""
    torch.manual_seed(seed)
    model = LASModel(LogMel(8), MLPEncoder(8, dim=D, stack=2), SPELLERS[kind](V), V, ctc=True)
    with torch.no_grad():
        model.speller.output.weight.mul_(sure)
        model.ctc_head.weight.mul_(sure)
    return model.double().eval()


def frames(*shape: int, seed: int = 0) -> Tensor:
    return 2 * torch.randn(*shape, D, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@torch.no_grad()
def attention_score(model: LASModel, encoded: Tensor, tokens: tuple[int, ...]) -> list[float]:
    """encoded [T, D] -> log P of each token and of the end."""
    text, lengths = torch.tensor([tokens], dtype=torch.long), torch.tensor([len(encoded)])
    log_probs = model.speller(text, model.from_encoder(encoded[None]), lengths)[0].log_softmax(-1)
    return [float(row[token]) for row, token in zip(log_probs, [*tokens, 0], strict=True)]


@torch.no_grad()
def ctc_score(model: LASModel, encoded: Tensor, tokens: tuple[int, ...]) -> float:
    row, target = model.ctc_log_probs(encoded[None])[0].double(), torch.tensor(tokens, dtype=torch.long)
    sizes = torch.tensor(len(row)), torch.tensor(len(tokens))
    return -F.ctc_loss(row, target, *sizes, reduction="sum").item()


def texts(V: int, most: int) -> list[tuple[int, ...]]:
    return [text for U in range(most + 1) for text in product(range(1, V), repeat=U)]


@pytest.mark.parametrize("kind", SPELLERS)
def test_an_unpruned_beam_is_brute_force(kind):
    model, encoded = las(4, kind), frames(1, 3)
    found = AttentionBeamSearch(200)(model, encoded, torch.tensor([3]))[0]
    truth = {text: sum(attention_score(model, encoded[0], text)) for text in texts(4, 3)}
    assert {tuple(h.tokens): pytest.approx(h.score, abs=1e-6) for h in found} == truth
    assert [h.score for h in found] == sorted((h.score for h in found), reverse=True)
    for h in found:
        assert h.token_log_probs == pytest.approx(
            attention_score(model, encoded[0], tuple(h.tokens))[:-1], abs=1e-5
        )


@pytest.mark.parametrize("kind", SPELLERS)
def test_with_ctc_and_scorers_it_is_brute_force_too(kind):
    model, encoded, w = las(4, kind), frames(1, 3), 0.4
    lm = NGramLM.estimate(["a b a", "b b a", "a ▁ b"], order=2)
    scorers = [(TokenNGramScorer(lm, TOKENS), 0.7), (LengthBonus(4), 0.5)]
    found = AttentionBeamSearch(200, ctc_weight=w, scorers=scorers)(model, encoded, torch.tensor([3]))[0]
    truth = {}
    for text in texts(4, 3):
        acoustic = (1 - w) * sum(attention_score(model, encoded[0], text)) + w * ctc_score(
            model, encoded[0], text
        )
        added = 0.7 * math.log(10) * lm.score(" ".join(TOKENS[t] for t in text)) + 0.5 * len(text)
        if math.isfinite(acoustic):  # CTC has no room for some
            truth[text] = (acoustic, added)
    assert {tuple(h.tokens) for h in found} == set(truth)
    for h in found:
        acoustic, added = truth[tuple(h.tokens)]
        assert h.parts == pytest.approx({"acoustic": acoustic, "scorers": added}, abs=1e-5)
        assert h.score == pytest.approx(acoustic + added, abs=1e-5)


FUSED = {
    "none": [],
    "length": [(LengthBonus(4), 0.8)],
    "tokens": [(TokenNGramScorer(NGramLM.estimate(["▁ a b", "a b a", "b ▁ a"], order=3), TOKENS), 0.6)],
    "words, hotwords": [
        (WordNGramScorer(NGramLM.estimate(["a ab b", "ba a"], order=2), TOKENS), 0.5),
        (Hotwords(["ab"], TOKENS), 1.5),
    ],
}


@torch.no_grad()
def by_lists(
    model: LASModel, encoded: Tensor, scorers: list, max_tokens_per_frame: float, **settings
) -> list:
    """encoded [T, D] -> texts and scores of the beam search, by other means."""
    memory, walks = model.remember(encoded[None], torch.tensor([len(encoded)])), {}

    def walked(text: tuple[int, ...]) -> tuple:
        if text not in walks:
            before = walked(text[:-1])[1:] if text else (model.speller.begin(memory, 1), 0.0)
            log_probs, weights, state = model.step(torch.tensor([[0, *text][-1:]]), before[0], memory)
            walks[text] = log_probs[0, 0].tolist(), state, before[1] + weights[0, 0]
        return walks[text]

    return beam_of_texts(
        lambda text: (walked(text)[0], walked(text)[2].tolist()),
        ctc_of_texts(model.ctc_log_probs(encoded[None])[0].double().exp().tolist()),
        ScoredTexts(scorers, 4),
        math.ceil(len(encoded) * max_tokens_per_frame),
        **settings,
    )


@pytest.mark.parametrize("threshold", [None, 0.0, 1.0, 5.0])
@pytest.mark.parametrize("kind", SPELLERS)
def test_what_a_beam_prunes_is_what_lists_of_texts_prune(kind, threshold):
    draw = random.Random(f"{kind} {threshold}")
    for seed in range(8):
        T, scorers = draw.choice([1, 4, 7]), draw.choice([*FUSED.values()])
        settings = {
            "beam_size": draw.choice([1, 2, 4, 7]),
            "ctc_weight": draw.choice([0.0, 0.3, 0.7]),
            "beam_threshold": threshold,
            "length_normalization": draw.choice([0.0, 0.0, 0.7]),
            "coverage_weight": draw.choice([0.0, 0.4, -0.2]),
            "end_threshold": draw.choice([None, 0.6, 1.2]),
        }
        most = draw.choice([0.5, 1.0, 2.0])
        model, encoded = las(4, kind, seed), frames(1, T, seed=seed)
        search = AttentionBeamSearch(scorers=scorers, max_tokens_per_frame=most, **settings)
        padded = torch.cat([encoded, 5 * frames(1, 3, seed=99)], 1)
        found = search(model, torch.cat([padded, frames(1, T + 3, seed=98)]), torch.tensor([T, T + 3]))[0]
        expected = by_lists(model, encoded[0], scorers, most, **settings)
        assert [tuple(h.tokens) for h in found if h.score > -math.inf] == [text for text, _ in expected]
        scores = [score for _, score in expected] or [-math.inf]
        assert [h.score for h in found] == pytest.approx(scores, abs=1e-4)


@pytest.mark.parametrize("a", [0.5, 1.0])
def test_length_normalization_ranks_by_the_score_for_each_token(a):
    model, encoded = las(4), frames(1, 3)
    found = AttentionBeamSearch(200, length_normalization=a)(model, encoded, torch.tensor([3]))[0]
    truth = {t: sum(attention_score(model, encoded[0], t)) / (len(t) + 1) ** a for t in texts(4, 3)}
    assert {tuple(h.tokens): pytest.approx(h.score, abs=1e-6) for h in found} == truth
    assert found[0].tokens == list(max(truth, key=truth.get))
    for h in found:
        acoustic = sum(attention_score(model, encoded[0], tuple(h.tokens)))
        assert h.parts == pytest.approx({"acoustic": acoustic, "ranking": h.score - acoustic}, abs=1e-6)


def test_coverage_counts_the_frames_that_were_looked_at():
    model, encoded, weight = las(4, "lstm"), frames(1, 3), 0.3
    found = AttentionBeamSearch(200, coverage_weight=weight)(model, encoded, torch.tensor([3]))[0]
    memory = model.remember(encoded, torch.tensor([3]))
    for h in found:
        state, total = model.speller.begin(memory, 1), 0.0
        for token in [0, *h.tokens]:
            _, weights, state = model.step(torch.tensor([[token]]), state, memory)
            total = total + weights[0, 0]
        covered = int((total > 0.5).sum())
        assert h.score == pytest.approx(
            sum(attention_score(model, encoded[0], tuple(h.tokens))) + weight * covered
        )


@pytest.mark.parametrize("g", [0.5, 1.3])
def test_a_text_may_end_only_where_the_end_is_probable_enough(g):
    model, encoded = las(4), frames(1, 3)
    with torch.no_grad():
        model.speller.output.bias[0] += 5.0  # so that some may
    found = AttentionBeamSearch(200, end_threshold=g)(model, encoded, torch.tensor([3]))[0]
    allowed = 0
    for text in texts(4, 2):  # texts of the greatest length have to end
        heard = model.from_encoder(encoded)
        log_probs = model.speller(torch.tensor([text], dtype=torch.long), heard, torch.tensor([3]))[0, -1]
        log_probs = log_probs.log_softmax(-1)
        may_end = bool(log_probs[0] > g * log_probs[1:].max())
        assert (list(text) in [h.tokens for h in found]) == may_end
        allowed += may_end
    assert 0 < allowed < 13


def test_without_another_token_the_end_has_no_threshold():
    found = AttentionBeamSearch(4, end_threshold=1.2)(las(1), frames(1, 6), torch.tensor([6]))[0]
    assert [(h.tokens, h.score) for h in found] == [([], 0.0)]


def test_a_text_may_have_as_many_tokens_as_frames_begun():
    assert token_limits(torch.tensor([0, 1, 2, 3]), 0.5).tolist() == [0, 1, 1, 2]
    assert token_limits(torch.tensor([0, 1, 2, 3]), 1.5).tolist() == [0, 2, 3, 5]


@pytest.mark.parametrize("kind", SPELLERS)
def test_greedy_is_the_choice_of_a_plain_loop(kind):
    for seed in range(6):
        model, encoded = las(5, kind, seed), frames(1, 9, seed=seed)
        tokens, score = [], 0.0
        heard = model.from_encoder(encoded)
        for _ in range(9):
            text = torch.tensor([tokens], dtype=torch.long)
            log_probs = model.speller(text, heard, torch.tensor([9]))[0, -1].log_softmax(-1)
            value, token = log_probs.max(0)
            score += value.item()
            if token == 0:
                break
            tokens.append(int(token))
        found = AttentionGreedySearch()(model, encoded, torch.tensor([9]))[0][0]
        assert found.tokens == tokens and found.score == pytest.approx(score, abs=1e-5)


@pytest.mark.parametrize("kind", SPELLERS)
def test_a_beam_never_loses_to_greedy(kind):
    ended = 0
    for seed in range(12):
        model, encoded = las(6, kind, seed), frames(3, 10, seed=seed)
        lengths = torch.tensor([10, 6, 1])
        greedy = AttentionGreedySearch()(model, encoded, lengths)
        for size in 1, 4:
            beam = AttentionBeamSearch(size)(model, encoded, lengths)
            for (ours, *_), (theirs,), length in zip(beam, greedy, lengths.tolist(), strict=True):
                if len(theirs.tokens) < length:  # greedy came to an end
                    ended += 1
                    assert ours.score >= theirs.score - 1e-6
    assert ended > 6


SEARCHES = [
    AttentionGreedySearch(),
    AttentionGreedySearch(2.5),
    AttentionBeamSearch(5),
    AttentionBeamSearch(4, ctc_weight=0.5, beam_threshold=3.0),
    AttentionBeamSearch(
        3, scorers=[(LengthBonus(4), 0.3), (Hotwords(["ab"], TOKENS), 1.0)], coverage_weight=0.2
    ),
    AttentionBeamSearch(3, length_normalization=1.0, end_threshold=1.5, max_tokens_per_frame=0.5),
]


@pytest.mark.parametrize("kind", SPELLERS)
@pytest.mark.parametrize("search", SEARCHES)
def test_an_utterance_is_the_same_alone_and_in_a_batch(search, kind):
    model, encoded = las(4, kind), frames(4, 10)
    lengths = torch.tensor([10, 6, 1, 0])
    together = search(model, encoded, lengths)
    for row, length in enumerate(lengths.tolist()):
        alone = search(model, encoded[row : row + 1, : max(1, length)], lengths[row : row + 1])[0]
        assert [h.tokens for h in alone] == [h.tokens for h in together[row]]
        assert [h.score for h in alone] == pytest.approx([h.score for h in together[row]], abs=1e-9)
        assert [h.token_times for h in alone] == [h.token_times for h in together[row]]


@pytest.mark.parametrize(
    "search",
    [
        AttentionBeamSearch(30, ctc_weight=0.3, max_tokens_per_frame=2),
        AttentionBeamSearch(4, ctc_weight=0.3, max_tokens_per_frame=2, end_threshold=1.2),
    ],
    ids=["n-best list", "best text"],
)
def test_texts_that_ctc_has_no_room_for_are_as_impossible_in_a_batch(search):
    model, encoded = las(4, "lstm"), frames(2, 6)
    alone = search(model, encoded[:1, :1], torch.tensor([1]))[0]
    beside = search(model, encoded, torch.tensor([1, 6]))[0]
    assert [h.tokens for h in alone] == [h.tokens for h in beside]


def test_ctc_that_is_no_number_is_impossible():
    model = las(4)
    with torch.no_grad():
        model.ctc_head.bias[0] = math.nan
    found = AttentionBeamSearch(4, ctc_weight=0.3)(model, frames(1, 6), torch.tensor([6]))[0]
    assert [h.score for h in found] == [-math.inf]


@pytest.mark.parametrize("kind", SPELLERS)
@pytest.mark.parametrize("search", SEARCHES)
def test_every_list_is_sorted_without_doubles_and_within_bounds(search, kind):
    for seed in range(4):
        model = las(4, kind, seed)
        found = search(model, frames(3, 9, seed=seed), torch.tensor([9, 5, 0]))
        for hypotheses, length in zip(found, (9, 5, 0), strict=True):
            scores = [h.score for h in hypotheses]
            assert scores == sorted(scores, reverse=True) and all(map(math.isfinite, scores))
            assert len({tuple(h.tokens) for h in hypotheses}) == len(hypotheses)
            for h in hypotheses:
                assert len(h.tokens) <= math.ceil(length * search.max_tokens_per_frame) and 0 not in h.tokens
                assert len(h.token_times) == len(h.token_log_probs) == len(h.tokens)
                assert h.token_times == sorted(h.token_times) and all(t < length for t in h.token_times)
                assert sum(h.parts.values()) == pytest.approx(h.score)


def test_a_threshold_drops_what_is_far_behind_and_nothing_else():
    model, encoded, lengths = las(5, sure=8.0), frames(2, 8), torch.tensor([8, 5])
    exact = AttentionBeamSearch(6)(model, encoded, lengths)
    for threshold in 60.0, 12.0:
        pruned = AttentionBeamSearch(6, beam_threshold=threshold)(model, encoded, lengths)
        for ours, theirs in zip(pruned, exact, strict=True):
            assert ours[0].tokens == theirs[0].tokens and ours[0].score == pytest.approx(theirs[0].score)


def test_with_a_threshold_it_stops_when_nothing_can_catch_up():
    model, steps = las(4, sure=8.0), []
    with torch.no_grad():  # after the first tokens the end is nearly sure
        model.speller.output.bias[0] = 12.0
    step = model.step
    model.step = lambda *inputs: steps.append(1) or step(*inputs)
    AttentionBeamSearch(4, beam_threshold=5.0)(model, frames(2, 50), torch.tensor([50, 50]))
    assert len(steps) < 10
    steps.clear()
    AttentionBeamSearch(4)(model, frames(2, 50), torch.tensor([50, 50]))
    assert len(steps) == 51


def test_a_model_that_never_ends_is_stopped():
    model = las(4)
    with torch.no_grad():
        model.speller.output.bias[0] = -1000.0
    greedy = AttentionGreedySearch()(model, frames(1, 7), torch.tensor([7]))[0][0]
    beam = AttentionBeamSearch(3, beam_threshold=5.0)(model, frames(1, 7), torch.tensor([7]))[0][0]
    assert len(greedy.tokens) == 7 and greedy.score > -100  # an end that it did not choose costs nothing
    assert len(beam.tokens) <= 7 and beam.score < -900


def test_without_clips_there_is_nothing():
    for search in AttentionGreedySearch(), AttentionBeamSearch(2):
        assert search(las(4), frames(0, 5), torch.zeros(0, dtype=torch.long)) == []


@pytest.mark.parametrize(
    "settings,message",
    [
        ({"beam_size": 0}, "beam_size=0"),
        ({"ctc_weight": 1}, "ctc_weight=1"),
        ({"max_tokens_per_frame": 0}, "max_tokens_per_frame=0"),
        ({"beam_threshold": -1}, "beam_threshold=-1"),
        ({"length_normalization": 3}, "length_normalization=3"),
        ({"coverage_weight": math.nan}, "coverage_weight=nan"),
        ({"coverage_weight": 1e308}, r"coverage_weight=1e\+308"),  # a sum of such scores is no number
        ({"end_threshold": "x"}, "end_threshold='x'"),
        ({"end_threshold": 0}, "end_threshold=0 must be a number above 0"),
        ({"scorers": 3}, "scorers=3"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        AttentionBeamSearch(**settings)


def test_ctc_needs_a_model_that_has_it():
    model = las(4)
    model.ctc_head = None
    with pytest.raises(UserError, match="needs a model with a CTC layer"):
        AttentionBeamSearch(2, ctc_weight=0.3)(model, frames(1, 3), torch.tensor([3]))


def test_times_are_those_of_ctcs_best_alignment():
    model, encoded, lengths = las(4), frames(2, 12), torch.tensor([12, 8])
    log_probs = model.ctc_log_probs(encoded)
    aligned = 0
    for search in AttentionGreedySearch(0.5), AttentionBeamSearch(4):
        for row, hypotheses in enumerate(search(model, encoded, lengths)):
            for h in (h for h in hypotheses if h.tokens):
                text, count, one = (
                    torch.tensor([h.tokens]),
                    torch.tensor([len(h.tokens)]),
                    slice(row, row + 1),
                )
                positions = ctc_alignment(log_probs[one], lengths[one], text, count)[0].tolist()
                if set(range(len(h.tokens))) <= set(positions):  # else it is too long for CTC
                    aligned += 1
                    assert h.token_times == [positions.index(u) for u in range(len(h.tokens))]
    assert aligned > 5


@pytest.mark.parametrize("search", [AttentionGreedySearch(3), AttentionBeamSearch(4, max_tokens_per_frame=3)])
def test_times_of_texts_that_ctc_cannot_align_are_where_it_looked(search):
    model, found = las(4), []
    with torch.no_grad():
        model.speller.output.bias[0] = -1000.0
    for _ in range(2):
        hypotheses = search(model, frames(1, 3), torch.tensor([3]))[0]
        found.append([h.token_times for h in hypotheses if len(h.tokens) > 3])
        model.ctc_head = None
    assert found[0] == found[1] and any(times[-1] for times in found[0])


def test_without_a_ctc_layer_times_are_where_it_looked():
    model, encoded, lengths = las(4, "lstm"), frames(1, 12), torch.tensor([12])
    model.ctc_head = None
    (h,) = AttentionGreedySearch()(model, encoded, lengths)[0]
    memory, times = model.remember(encoded, lengths), []
    state = model.speller.begin(memory, 1)
    for token in [0, *h.tokens[:-1]]:
        _, weights, state = model.step(torch.tensor([[token]]), state, memory)
        times.append(max([int(weights.argmax()), *times[-1:]]))
    assert h.token_times == times and len(times) > 2
