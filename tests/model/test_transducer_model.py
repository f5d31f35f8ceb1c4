"""The transducer as a whole: step by step as at once, and in any batch."""

from __future__ import annotations

import pytest
import torch

from src.model import LSTMPredictor, StatelessPredictor, TransducerModel
from src.model.encoders import ConformerEncoder, MLPEncoder
from src.transforms import LogMel
from src.utils.errors import UserError

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


def test_sizes_of_nothing_and_parts_that_are_none_are_named():
    for kind, setting in (
        *((LSTMPredictor, name) for name in ("dim", "num_layers")),
        *((StatelessPredictor, name) for name in ("dim", "context")),
    ):
        with pytest.raises(UserError, match=f"{setting}=0 must be a whole number of at least 1"):
            kind(V, **{setting: 0})
    parts = LogMel(8), MLPEncoder(8, dim=32, stack=2)
    with pytest.raises(UserError, match="predictor='x' must be a part of the model"):
        TransducerModel(*parts, "x", V)
    with pytest.raises(UserError, match="joint_dim=0 must be a whole number of at least 1"):
        TransducerModel(*parts, PREDICTORS["lstm"](), V, joint_dim=0)


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
