"""The transducer as a whole: step by step as at once, in any batch, what it can learn and what it cannot."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from src.decoding import TransducerBeamSearch, TransducerGreedySearch
from src.loss import TransducerObjective
from src.metrics import corpus_error_rates
from src.model import LSTMPredictor, StatelessPredictor, TransducerModel
from src.model.encoders import ConformerEncoder, MLPEncoder
from src.transforms import LogMel

V = 6
PREDICTORS = {
    "lstm": lambda: LSTMPredictor(V, dim=16, dropout=0.0),
    "lstm of three layers": lambda: LSTMPredictor(V, dim=16, num_layers=3, dropout=0.0),
    "stateless": lambda: StatelessPredictor(V, dim=16, context=2, dropout=0.0),
    "one token": lambda: StatelessPredictor(V, dim=16, context=1, dropout=0.0),
    "four tokens": lambda: StatelessPredictor(V, dim=16, context=4, dropout=0.0),
}


def transducer(predictor: str, encoder: torch.nn.Module | None = None) -> TransducerModel:
    torch.manual_seed(0)
    encoder = encoder or MLPEncoder(8, dim=32, stack=2)
    return TransducerModel(LogMel(8), encoder, PREDICTORS[predictor](), V, joint_dim=32, ctc=True)


@pytest.mark.parametrize("name", PREDICTORS)
def test_a_predictor_says_the_same_token_by_token(name):
    predictor = PREDICTORS[name]().eval()
    tokens = torch.randint(1, V, (3, 7), generator=torch.Generator().manual_seed(0))
    at_once = predictor(tokens)
    state = predictor.begin(3)
    for position, token in enumerate(torch.nn.functional.pad(tokens, (1, 0)).unbind(1)):
        output, state = predictor.step(token, state)
        torch.testing.assert_close(output, at_once[:, position], atol=1e-6, rtol=1e-5)
        assert all(len(part) == 3 for part in state)


@pytest.mark.parametrize("name", ["lstm", "stateless"])
def test_a_clip_is_the_same_alone_and_beside_others(name):
    model = transducer(name, ConformerEncoder(8, dim=16, num_layers=1, num_heads=2, kernel_size=5)).eval()
    features = torch.randn(3, 90, 8, generator=torch.Generator().manual_seed(1))
    lengths, tokens = torch.tensor([90, 41, 60]), torch.randint(1, V, (3, 5))
    with torch.no_grad():
        together = model(features, lengths, tokens)
        for row, length in enumerate(lengths.tolist()):
            alone = model(features[row : row + 1, :length], lengths[row : row + 1], tokens[row : row + 1, :2])
            count = int(alone["encoded_lengths"])
            assert count == int(together["encoded_lengths"][row])
            for key, size in (("joint_encoded", count), ("log_probs", count), ("joint_predicted", 3)):
                torch.testing.assert_close(
                    alone[key][0, :size], together[key][row, :size], atol=1e-4, rtol=1e-4
                )


def spoken(batch: int, generator: torch.Generator, noise_only: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Texts of one to four tokens, no two alike in a row, and features [B, 24, 8], six frames a token; or noise."""
    counts = torch.randint(1, 5, (batch,), generator=generator)
    steps = torch.randint(1, V - 1, (batch, 4), generator=generator)
    tokens = 1 + steps.cumsum(1) % (V - 1)
    tokens = torch.where(torch.arange(4) < counts[:, None], tokens, 0)
    features = torch.randn(batch, 24, 8, generator=generator)
    if not noise_only:
        features = 0.1 * features
        said = torch.nn.functional.one_hot(tokens, 8).float() * (tokens > 0).unsqueeze(2)
        features[:, 2::6] += 3 * said
        features[:, 3::6] += 3 * said
    return features, torch.full((batch,), 24), tokens, counts


def trained(predictor: str, steps: int, noise_only: bool) -> TransducerModel:
    """On new clips in every step."""
    model, objective = transducer(predictor), TransducerObjective(ctc_weight=0.3)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        features, lengths, tokens, counts = spoken(16, generator, noise_only)
        outputs = model(features, lengths, tokens)
        result = objective(tokens=tokens, token_lengths=counts, **outputs)
        optimizer.zero_grad()
        (result["loss_sum"] / result["normalizer"]).backward()
        optimizer.step()
    return model.eval()


def error_rate(model: TransducerModel, search, noise_only: bool) -> float:
    """Of tokens, of texts that the search finds by itself."""
    features, lengths, tokens, counts = spoken(64, torch.Generator().manual_seed(1), noise_only)
    with torch.no_grad():
        found = search(*model.search_inputs(model(features, lengths)))
    texts = [" ".join(map(str, hypotheses[0].tokens)) for hypotheses in found]
    references = [" ".join(map(str, row[:n].tolist())) for row, n in zip(tokens, counts, strict=True)]
    return corpus_error_rates(references, texts)["wer"]


SEARCHES = [TransducerGreedySearch(), TransducerGreedySearch(3), TransducerBeamSearch(4, beam_threshold=10)]


@pytest.mark.parametrize("predictor", ["lstm", "stateless"])
def test_it_learns_to_write_what_is_said(predictor):
    model = trained(predictor, steps=250, noise_only=False)
    for search in SEARCHES:
        assert error_rate(model, search, noise_only=False) < 0.05


@pytest.mark.parametrize("predictor", ["lstm", "stateless"])
def test_from_pure_noise_it_learns_nothing(predictor):
    """Whoever saw the targets it is to predict would write them: a leak. Guessing one of four tokens is right at most
    in a quarter of the places, and texts of other lengths are worse."""
    model = trained(predictor, steps=150, noise_only=True)
    for search in SEARCHES:
        assert error_rate(model, search, noise_only=True) > 0.7
