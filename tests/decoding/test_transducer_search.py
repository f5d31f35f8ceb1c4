from __future__ import annotations

import math
from itertools import product

import pytest
import torch
from reference.transducer_paths import likelihood_of_short_frames
from torch import Tensor

from src.decoding import Hotwords, LengthBonus, TransducerBeamSearch, TransducerGreedySearch
from src.lm import NGramLM, TokenNGramScorer
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


@pytest.mark.parametrize(
    "search",
    [
        TransducerGreedySearch(2),
        TransducerBeamSearch(5),
        TransducerBeamSearch(4, 3),
        TransducerBeamSearch(4, scorers=[(LengthBonus(4), 0.3), (Hotwords(["ab"], TOKENS), 1.0)]),
    ],
)
def test_an_utterance_is_the_same_alone_and_in_a_batch(search):
    model, encoded = transducer(4), frames(4, 10)
    lengths = torch.tensor([10, 6, 1, 0])
    together = search(model, encoded, lengths)
    for row, length in enumerate(lengths.tolist()):
        alone = search(model, encoded[row : row + 1, :length], lengths[row : row + 1])[0]
        assert [h.tokens for h in alone] == [h.tokens for h in together[row]]
        assert [h.score for h in alone] == pytest.approx([h.score for h in together[row]], abs=1e-9)
        assert [h.token_times for h in alone] == [h.token_times for h in together[row]]


def test_scorers_add_what_they_give_the_whole_text():
    model, encoded = transducer(4), frames(1, 3)
    lm = NGramLM.estimate(["▁ a b", "a b a", "b ▁ a"], order=3)
    scorers = [(TokenNGramScorer(lm, TOKENS), 0.7), (LengthBonus(4), 0.4)]
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


def test_an_untrained_model_that_only_talks_is_stopped():
    model = transducer(4)
    with torch.no_grad():
        model.output.bias[0] = -100.0
    for search in (TransducerGreedySearch(3), TransducerBeamSearch(2, 3)):
        assert len(search(model, frames(1, 5), torch.tensor([5]))[0][0].tokens) == 15


@pytest.mark.parametrize(
    "settings",
    [
        {"beam_threshold": -1},
        {"beam_threshold": "a"},
        {"max_symbols_per_frame": 0},
        {"max_symbols_per_frame": True},
        {"blank": -1},
        {"beam_size": 0},
    ],
)
def test_settings_out_of_range_are_named(settings):
    with pytest.raises(UserError, match=next(iter(settings))):
        TransducerBeamSearch(**settings)
    if not {"beam_size", "beam_threshold"} & settings.keys():
        with pytest.raises(UserError, match=next(iter(settings))):
            TransducerGreedySearch(**settings)
