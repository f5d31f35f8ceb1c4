from __future__ import annotations

import math
import random
from functools import cache
from itertools import product

import numpy as np
import pytest
import torch
from reference.scored_texts import ScoredTexts
from reference.transducer_beam import beam_of_texts
from reference.transducer_paths import likelihood_of_short_frames
from support.constructed_transducer import ConstructedTransducer
from torch import Tensor

from src.decoding import (
    Hotwords,
    LengthBonus,
    TransducerBeamSearch,
    TransducerGreedySearch,
    scorer,
    transducer_beam,
    transducer_greedy,
)
from src.decoding.settings import NEVER
from src.decoding.transducer_frames import Frames
from src.decoding.transducer_prefixes import Prefixes, grow, longer, no_names
from src.lm import NGramLM, TokenNGramScorer, WordNGramScorer
from src.loss.transducer import transducer_loss
from src.model import LSTMPredictor, StatelessPredictor, TransducerModel
from src.model.encoders import MLPEncoder
from src.transforms import LogMel
from src.utils.errors import UserError

H = 8
TOKENS = ["<blank>", "▁", "a", "b"]


def transducer(V: int, predictor: str = "lstm", seed: int = 0) -> TransducerModel:
    torch.manual_seed(seed)
    kinds = {"lstm": LSTMPredictor, "stateless": StatelessPredictor}
    model = TransducerModel(
        LogMel(8), MLPEncoder(8, dim=4, stack=2), kinds[predictor](V, dim=6), V, joint_dim=H
    )
    return model.double().eval()


def frames(*shape: int, seed: int = 0) -> Tensor:
    return 3 * torch.randn(*shape, H, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@torch.no_grad()
def lattice(model: TransducerModel, encoded: Tensor, tokens: list[int]) -> Tensor:
    """encoded [T, H] -> log_probs [T, U + 1, V]."""
    predicted = model.from_predictor(model.predictor(torch.tensor([tokens], dtype=torch.long)))
    return model.joint(encoded[:, None], predicted).double()


@pytest.mark.parametrize("predictor", ["lstm", "stateless"])
@pytest.mark.parametrize("S,T", [(1, 3), (1, 4), (2, 2), (3, 2)])
def test_an_unpruned_beam_is_brute_force_over_the_restricted_lattice(predictor, S, T):
    model, encoded = transducer(3, predictor), frames(1, T)
    found = TransducerBeamSearch(300, S)(model, encoded, torch.tensor([T]))[0]
    truth = {
        tokens: math.log(likelihood_of_short_frames(lattice(model, encoded[0], list(tokens)), tokens, S))
        for U in range(S * T + 1)
        for tokens in product((1, 2), repeat=U)
    }
    assert {tuple(h.tokens): pytest.approx(h.score, abs=1e-6) for h in found} == truth
    assert [h.score for h in found] == sorted((h.score for h in found), reverse=True)
    assert sum(map(math.exp, truth.values())) <= 1 + 1e-6


def test_with_room_for_all_tokens_in_a_frame_the_score_is_the_loss():
    model, encoded, S = transducer(3), frames(2, 3), 3
    lengths = torch.tensor([3, 2])
    for row, hypotheses in enumerate(TransducerBeamSearch(3000, S)(model, encoded, lengths)):
        T = int(lengths[row])
        for h in [h for h in hypotheses if len(h.tokens) <= S]:
            log_probs = lattice(model, encoded[row, :T], h.tokens)[None]
            targets = torch.tensor([h.tokens], dtype=torch.long)
            loss = transducer_loss(log_probs, targets, lengths[row : row + 1], torch.tensor([len(h.tokens)]))
            assert h.score == pytest.approx(-loss.item(), abs=1e-6)


@pytest.mark.parametrize("S", [1, 2, 4])
@pytest.mark.parametrize("predictor", ["lstm", "stateless"])
def test_a_beam_of_one_makes_the_greedy_choices(predictor, S):
    for seed in range(5):
        model, encoded = transducer(6, predictor, seed), frames(3, 12, seed=seed)
        lengths = torch.tensor([12, 7, 0])
        greedy = TransducerGreedySearch(S)(model, encoded, lengths)
        beam = TransducerBeamSearch(1, S)(model, encoded, lengths)
        assert [h[0].tokens for h in beam] == [h[0].tokens for h in greedy]
        assert [h[0].token_times for h in beam] == [h[0].token_times for h in greedy]
        for ours, theirs in zip(beam, greedy, strict=True):
            assert ours[0].token_log_probs == pytest.approx(theirs[0].token_log_probs, abs=1e-6)
        assert greedy[2][0].tokens == [] and greedy[2][0].score == 0.0


@pytest.mark.parametrize("S", [1, 2])
def test_a_beam_of_one_is_greedy_where_all_choices_are_alike(S):
    """As of a model whose output layer begins at 0."""
    model = transducer(4)
    with torch.no_grad():
        model.output.weight.zero_()
        model.output.bias.zero_()
    for search in TransducerGreedySearch(S), TransducerBeamSearch(1, S):
        assert search(model, frames(1, 6), torch.tensor([6]))[0][0].tokens == []


def test_greedy_is_the_choice_of_a_plain_loop():
    model, encoded = transducer(5), frames(1, 9)
    tokens, times, score = [], [], 0.0
    for t in range(9):
        for _ in range(2):
            log_probs = lattice(model, encoded[0], tokens)[t, -1]
            value, token = log_probs.max(0)
            score += float(value)
            if token == 0:
                break
            tokens.append(int(token))
            times.append(t)
    found = TransducerGreedySearch(2)(model, encoded, torch.tensor([9]))[0][0]
    assert (found.tokens, found.token_times) == (tokens, times) and len(tokens) > 3
    assert found.score == pytest.approx(score, abs=1e-5)


def token_lm() -> TokenNGramScorer:
    return TokenNGramScorer(NGramLM.estimate(["▁ a b", "a b a", "b ▁ a"], order=3), TOKENS)


def word_lm() -> WordNGramScorer:
    return WordNGramScorer(NGramLM.estimate(["a ab b", "ba a"], order=2), TOKENS, unknown_penalty=-2.0)


FUSED = {
    "none": [],
    "length": [(LengthBonus(4), 0.8)],
    "tokens": [(token_lm(), 0.6)],
    "words, hotwords": [(word_lm(), 0.5), (Hotwords(["ab"], TOKENS), 1.5)],
    "negative": [(token_lm(), -0.3)],
}


@torch.no_grad()
def by_dictionary(model: TransducerModel, encoded: Tensor, K: int, S: int, scorers: list, threshold) -> list:
    """encoded [T, H] -> texts and scores of the beam search, by other means."""
    log_probs = cache(lambda text: lattice(model, encoded, list(text))[:, -1].tolist())
    return beam_of_texts(log_probs, len(encoded), K, S, ScoredTexts(scorers, 4), threshold)


@pytest.mark.parametrize("threshold", [None, 0.5, 2.0, 6.0])
@pytest.mark.parametrize("S", [1, 2, 3])
def test_what_a_beam_prunes_is_what_a_dictionary_of_texts_prunes(S, threshold):
    draw = random.Random(f"{S} {threshold}")
    for seed in range(5):
        K, T, scorers = draw.choice([1, 2, 3, 5, 8]), draw.choice([1, 5, 12]), draw.choice([*FUSED])
        model = transducer(4, draw.choice(["lstm", "stateless"]), seed)
        with torch.no_grad():  # half of them mostly say nothing, as trained ones do
            is_quiet = draw.random() < 0.5
            model.output.weight *= 4 if is_quiet else 1
            model.output.bias[0] += 4 if is_quiet else 0
        encoded = frames(1, T, seed=seed)
        search = TransducerBeamSearch(K, S, scorers=FUSED[scorers], beam_threshold=threshold)
        found = search(model, encoded, torch.tensor([T]))[0]
        expected = by_dictionary(model, encoded[0], K, S, FUSED[scorers], threshold)
        assert [tuple(h.tokens) for h in found] == [text for text, _ in expected]
        assert [h.score for h in found] == pytest.approx([score for _, score in expected], abs=1e-4)


def assert_same(ours: list, theirs: list) -> None:
    """Two n-best lists."""
    assert [h.tokens for h in ours] == [h.tokens for h in theirs]
    assert [h.token_times for h in ours] == [h.token_times for h in theirs]
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.score == pytest.approx(other.score, abs=1e-5)
        assert mine.parts == pytest.approx(other.parts, abs=1e-5)
        assert mine.token_log_probs == pytest.approx(other.token_log_probs, abs=1e-5)


SEARCHES = {
    "greedy": TransducerGreedySearch(2),
    "beam": TransducerBeamSearch(5),
    "beam, threshold": TransducerBeamSearch(5, beam_threshold=2),
    "beam, three symbols": TransducerBeamSearch(4, 3),
    "beam, two symbols, threshold": TransducerBeamSearch(4, 2, beam_threshold=1.5),
    "beam, length, hotwords": TransducerBeamSearch(
        4, scorers=[(LengthBonus(4), 0.3), (Hotwords(["ab"], TOKENS), 1.0)]
    ),
    "beam, models of tokens and words": TransducerBeamSearch(
        4, scorers=[(token_lm(), 0.5), (word_lm(), 0.3)], beam_threshold=8
    ),
}


@pytest.mark.parametrize("predictor", ["lstm", "stateless"])
@pytest.mark.parametrize("search", SEARCHES.values(), ids=SEARCHES)
def test_an_utterance_is_the_same_alone_in_a_batch_in_any_order_and_beside_any_padding(search, predictor):
    for seed in range(4):
        model, encoded = transducer(4, predictor, seed), frames(5, 14, seed=seed)
        encoded[..., :] *= torch.rand(5, 14, 1, generator=torch.Generator().manual_seed(seed)) * 2
        lengths = torch.tensor([14, 9, 1, 0, 9])
        together = search(model, encoded, lengths)
        for row, length in enumerate(lengths.tolist()):
            assert_same(
                search(model, encoded[row : row + 1, :length], lengths[row : row + 1])[0], together[row]
            )
        padded = torch.nn.functional.pad(encoded, (0, 0, 0, 6))
        for row, length in enumerate(lengths.tolist()):
            padded[row, length:] = 1e4 * torch.randn(20 - length, H, dtype=padded.dtype)
        order = torch.tensor([3, 1, 4, 0, 2])
        for place, found in zip(order.tolist(), search(model, padded[order], lengths[order]), strict=True):
            assert_same(found, together[place])


@pytest.mark.parametrize("scorers", [[], [(token_lm(), 0.5), (LengthBonus(4), 1.0)]], ids=["none", "some"])
@pytest.mark.parametrize("threshold", [None, 6.0, 1.0])
def test_looking_ahead_changes_nothing(monkeypatch, scorers, threshold):
    """Frames between two changes of the beam are passed over by fewer operations, not with other results."""
    search, steps = TransducerBeamSearch(4, scorers=scorers, beam_threshold=threshold), []
    grow = transducer_beam.grow
    monkeypatch.setattr(transducer_beam, "grow", lambda *given: steps.append(0) or grow(*given))
    for seed in range(4):
        model = transducer(4, seed=seed)
        with torch.no_grad():  # a model that mostly says nothing, as trained ones do
            model.output.weight *= 4
            model.output.bias[0] += 4
        encoded, lengths = frames(3, 40, seed=seed), torch.tensor([40, 33, 5])
        found, counts = [], []
        for ahead in (1, 3, 4, 64):
            monkeypatch.setattr(transducer_beam, "FRAMES_AHEAD", ahead)
            steps.clear()
            found.append(search(model, encoded, lengths))
            counts.append(len(steps))
        for others in found[1:]:
            for ours, theirs in zip(others, found[0], strict=True):
                assert_same(ours, theirs)
        assert counts[0] == 40 and counts[2] < 40


@pytest.mark.parametrize("scorers", [[], [(token_lm(), 0.5)]], ids=["none", "some"])
@pytest.mark.parametrize("threshold", [None, 3.0])
def test_prefixes_that_a_predictor_cannot_tell_apart_are_one_text_with_the_same_results(
    monkeypatch, scorers, threshold
):
    search, sizes = TransducerBeamSearch(6, scorers=scorers, beam_threshold=threshold), []
    names, encoded = transducer_beam._Texts._names, frames(3, 30)
    lengths = torch.tensor([30, 17, 4])
    model = transducer(4, "stateless")
    joint = model.joint
    monkeypatch.setattr(model, "joint", lambda heard, said: sizes.append(len(said)) or joint(heard, said))
    shared = search(model, encoded, lengths)
    few = sum(sizes) / len(sizes)
    sizes.clear()

    def different(self, *given):
        self.knows_all = True
        return names(self, *given)

    monkeypatch.setattr(transducer_beam._Texts, "_names", different)
    alone = search(model, encoded, lengths)
    for ours, theirs in zip(shared, alone, strict=True):
        assert_same(ours, theirs)
    assert few < sum(sizes) / len(sizes)


@pytest.mark.parametrize("predictor", ["lstm", "stateless"])
@pytest.mark.parametrize("search", SEARCHES.values(), ids=SEARCHES)
def test_a_search_that_asks_no_tensor_for_its_values_finds_the_same(monkeypatch, search, predictor):
    """As on a GPU: greedy never stops early, and scorers look at all slots."""
    model, encoded, lengths = transducer(4, predictor), frames(3, 12), torch.tensor([12, 7, 0])
    asking = search(model, encoded, lengths)
    for module in (transducer_greedy, scorer):
        monkeypatch.setattr(module, "is_cheap_to_ask", lambda device: False)
    for ours, theirs in zip(search(model, encoded, lengths), asking, strict=True):
        assert_same(ours, theirs)


def test_a_dropped_prefix_has_nothing_left_that_could_grow():
    start = Prefixes.empty(1, 2, 0)
    name, last = start.name.copy(), start.last.copy()
    name[0, 1], last[0, 1] = longer(name[0, 0], 2), 2  # slot 1: the text of token 2
    total = np.array([[0.0, -50.0]])
    log_probs = np.tile(np.float32([0.0, -40.0, -30.0, -40.0]), (2, 2, 1))
    prefixes = start._replace(total=total, name=name, last=last)
    frame = Frames(log_probs, np.array([[0, 1]]), prefixes, 0, past=1).at(np.array([0]), total)
    after, active, _ = grow(prefixes, total, total + frame.blank, frame, None, 0, 10.0)
    assert after.total.tolist() == [[0.0, NEVER]] == [[0.0, *active[0, 1:].tolist()]]
    assert after.name[0, 1] == no_names(1, 2)[0, 1]


@pytest.mark.parametrize("search", SEARCHES.values(), ids=SEARCHES)
def test_an_n_best_list_is_sorted_of_different_texts_and_no_longer_than_the_beam(search):
    for seed in range(4):
        model, encoded = transducer(4, seed=seed), frames(4, 12, seed=seed)
        for found in search(model, encoded, torch.tensor([12, 8, 3, 0])):
            assert 1 <= len(found) <= getattr(search, "beam_size", 1)
            assert len({tuple(h.tokens) for h in found}) == len(found)
            assert [h.score for h in found] == sorted((h.score for h in found), reverse=True)
            assert all(len(h.tokens) == len(h.token_times) == len(h.token_log_probs) for h in found)
            assert all(h.token_times == sorted(h.token_times) for h in found)
            assert all(h.score == pytest.approx(sum(h.parts.values())) for h in found)


@pytest.mark.parametrize(
    "search", [TransducerGreedySearch(), TransducerBeamSearch(), TransducerBeamSearch(6, 2)]
)
def test_tokens_have_the_times_and_probabilities_of_a_constructed_alignment(search):
    spoken = {2: 3, 3: 1, 9: 2, 20: 3, 21: 2}  # frame -> token
    encoded = ConstructedTransducer.frames(spoken, count=24, vocab_size=4, probability=0.9)
    (best, *_), (shorter, *_) = search(
        ConstructedTransducer(4), encoded.expand(2, -1, -1), torch.tensor([24, 20])
    )
    assert best.tokens == [3, 1, 2, 3, 2] and best.token_times == [2, 3, 9, 20, 21]
    assert best.token_log_probs == pytest.approx([math.log(0.9)] * 5, abs=1e-4)
    assert shorter.tokens == [3, 1, 2] and shorter.token_times == [2, 3, 9]


@pytest.mark.parametrize("frame", [2, 3, 7])
def test_a_tokens_time_is_the_frame_that_made_it_probable(frame):
    encoded = ConstructedTransducer.frames({frame: 2}, count=10, vocab_size=4, probability=0.9)
    encoded[0, 1] = ConstructedTransducer.frames({0: 2}, 1, 4, probability=0.05)[
        0, 0
    ]  # a first, weak sign of it
    best = TransducerBeamSearch(4)(ConstructedTransducer(4), encoded, torch.tensor([10]))[0][0]
    assert best.tokens == [2] and best.token_times == [frame]
    assert best.token_log_probs == pytest.approx([math.log(0.9)], abs=1e-4)


def test_the_blank_may_be_any_token():
    model, encoded, lengths = transducer(4), frames(2, 8), torch.tensor([8, 5])
    with torch.no_grad():
        moved = transducer(4)
        moved.output.weight.copy_(model.output.weight[[2, 1, 0, 3]])
        moved.output.bias.copy_(model.output.bias[[2, 1, 0, 3]])
        moved.predictor.embedding.weight[[0, 2]] = moved.predictor.embedding.weight[0].clone()
        model.predictor.embedding.weight[2] = model.predictor.embedding.weight[0]
    for kind in (TransducerGreedySearch, TransducerBeamSearch):
        ours, theirs = kind(blank=2)(moved, encoded, lengths), kind()(model, encoded, lengths)
        for mine, other in zip(ours, theirs, strict=True):
            expected = [[{2: 0}.get(token, token) for token in h.tokens] for h in other]
            assert [h.tokens for h in mine] == expected
            assert [h.score for h in mine] == pytest.approx([h.score for h in other], abs=1e-5)


def test_a_word_model_inside_is_added_to_the_acoustic_score():
    model, encoded = transducer(4), frames(1, 4)
    plain, fused = (
        TransducerBeamSearch(3000, scorers=chosen)(model, encoded, torch.tensor([4]))[0]
        for chosen in ([], [(word_lm(), 0.7)])
    )
    acoustic, lm = {tuple(h.tokens): h.score for h in plain}, word_lm().lm
    compared = 0
    for h in fused:
        assert h.parts["acoustic"] == pytest.approx(acoustic[tuple(h.tokens)], abs=1e-6)
        words = "".join(TOKENS[token] for token in h.tokens).replace("▁", " ").split()
        if h.tokens and all(word in lm.ids for word in words):
            expected = 0.7 * math.log(10) * lm.score(" ".join(words))
            assert h.parts["scorers"] == pytest.approx(expected, abs=1e-5)
            compared += 1
    assert compared > 5


def test_scorers_add_what_they_give_the_whole_text():
    model, encoded = transducer(4), frames(1, 3)
    scorers, lm = [(token_lm(), 0.7), (LengthBonus(4), 0.4)], token_lm().lm
    plain, fused = (
        TransducerBeamSearch(3000, 2, scorers=chosen)(model, encoded, torch.tensor([3]))[0]
        for chosen in ([], scorers)
    )
    acoustic = {tuple(h.tokens): h.score for h in plain}
    assert len(acoustic) == len(fused)
    for h in fused:
        text = " ".join(TOKENS[token] for token in h.tokens)
        expected = acoustic[tuple(h.tokens)] + 0.7 * math.log(10) * lm.score(text) + 0.4 * len(h.tokens)
        assert h.score == pytest.approx(expected, abs=1e-5)
        assert h.parts["acoustic"] + h.parts["scorers"] == pytest.approx(h.score)


def test_a_better_beam_finds_no_worse_a_text():
    model, encoded = transducer(6, seed=1), frames(8, 12, seed=1)
    lengths = torch.full((8,), 12)
    best = [[h[0].score for h in TransducerBeamSearch(K)(model, encoded, lengths)] for K in (1, 4, 64)]
    assert sum(best[0]) < sum(best[1]) <= sum(best[2])


def test_a_threshold_drops_what_is_too_far_behind_the_best():
    model, encoded, lengths = transducer(4), frames(3, 8), torch.tensor([8, 5, 3])
    every = TransducerBeamSearch(6)(model, encoded, lengths)
    far, near = (TransducerBeamSearch(6, beam_threshold=x)(model, encoded, lengths) for x in (1000.0, 0.0))
    assert [[h.tokens for h in found] for found in far] == [[h.tokens for h in found] for found in every]
    assert [h.score for found in far for h in found] == [h.score for found in every for h in found]
    assert [len(found) for found in near] == [1, 1, 1]
    some = TransducerBeamSearch(6, beam_threshold=1.5)(model, encoded, lengths)
    assert all(1 <= len(found) <= 6 for found in some)
    # What was dropped early is missing later; what is left was never far behind.
    assert all(found[0].score - h.score < 8 * 1.5 for found in some for h in found)


@pytest.mark.parametrize("S", [1, 2, 3])
@pytest.mark.parametrize("scorers", [[], [(LengthBonus(4), 2.0), (word_lm(), 0.5)]], ids=["none", "some"])
def test_a_threshold_of_zero_leaves_what_a_beam_of_one_has(S, scorers):
    """What was dropped does not grow again, whatever scorers would give it."""
    for seed in range(6):
        model, encoded, lengths = transducer(4, seed=seed), frames(3, 12, seed=seed), torch.tensor([12, 7, 2])
        ours = TransducerBeamSearch(4, S, scorers=scorers, beam_threshold=0)(model, encoded, lengths)
        theirs = TransducerBeamSearch(1, S, scorers=scorers)(model, encoded, lengths)
        for mine, other in zip(ours, theirs, strict=True):
            assert_same(mine, other)


@pytest.mark.parametrize("S", [1, 3])
@pytest.mark.parametrize("predictor", ["lstm", "stateless"])
def test_an_untrained_model_that_only_talks_is_stopped(predictor, S):
    model = transducer(4, predictor)
    with torch.no_grad():
        model.output.bias[0] = -100.0
    bonus = [(LengthBonus(4), 1000.0)]
    for search in (
        TransducerGreedySearch(S),
        TransducerBeamSearch(2, S),
        TransducerBeamSearch(2, S, scorers=bonus),
    ):
        assert len(search(model, frames(1, 5), torch.tensor([5]))[0][0].tokens) == 5 * S


@pytest.mark.parametrize("kind", [TransducerGreedySearch, TransducerBeamSearch])
def test_inputs_that_do_not_fit_are_named(kind):
    with pytest.raises(UserError, match="blank=4 must be below 4"):
        kind(blank=4)(transducer(4), frames(1, 3), torch.tensor([2]))
    with pytest.raises(UserError, match=r"lengths=\[3, 4\] must be at most 3"):
        kind()(transducer(4), frames(2, 3), torch.tensor([3, 4]))
    found = kind()(transducer(4), frames(2, 0), torch.tensor([0, 0]))
    assert [h.tokens for hypotheses in found for h in hypotheses] == [[], []]


def test_a_scorer_of_other_tokens_is_named():
    with pytest.raises(UserError, match="LengthBonus's vocabulary=5 must be the model's, 4"):
        TransducerBeamSearch(scorers=[(LengthBonus(5), 1.0)])(transducer(4), frames(1, 3), torch.tensor([3]))


@pytest.mark.parametrize(
    "settings",
    [
        {"beam_threshold": -1},
        {"beam_threshold": "a"},
        {"max_symbols_per_frame": 0},
        {"max_symbols_per_frame": 10**9},  # an untrained model would never leave a frame
        {"max_symbols_per_frame": True},
        {"blank": -1},
        {"beam_size": 0},
        {"scorers": [LengthBonus(4)]},
        {"scorers": [(LengthBonus(4), float("nan"))]},
        {"scorers": [(LengthBonus(4), 1e308)]},
    ],
)
def test_settings_out_of_range_are_named(settings):
    with pytest.raises(UserError, match=f"{next(iter(settings))}|the weight of LengthBonus"):
        TransducerBeamSearch(**settings)
    if not {"beam_size", "beam_threshold", "scorers"} & settings.keys():
        with pytest.raises(UserError, match=next(iter(settings))):
            TransducerGreedySearch(**settings)


def test_scorers_need_a_blank_of_zero():
    """To them token 0 is no token."""
    with pytest.raises(UserError, match="blank=2 must be 0"):
        TransducerBeamSearch(4, blank=2, scorers=[(LengthBonus(4), 1.0)])
