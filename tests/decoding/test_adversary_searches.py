"""What an adversary found wrong with the searches of transducers and attention models; each test fails until then."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from src.decoding import (
    AttentionBeamSearch,
    LengthBonus,
    TransducerBeamSearch,
    TransducerGreedySearch,
)
from src.decoding.ctc_prefix_scorer import CTCPrefixScorer
from src.model import LASModel, LSTMPredictor, TransducerModel
from src.model.encoders import MLPEncoder
from src.model.spellers import LSTMSpeller
from src.transforms import LogMel
from src.utils.errors import UserError

D, V = 6, 4


def las(seed: int = 0) -> LASModel:
    torch.manual_seed(seed)
    speller = LSTMSpeller(V, 8, num_layers=1, attention_dim=6)
    model = LASModel(LogMel(8), MLPEncoder(8, dim=D, stack=2), speller, V, ctc=True)
    with torch.no_grad():
        model.speller.output.weight.mul_(4)
        model.ctc_head.weight.mul_(4)
    return model.double().eval()


def transducer() -> TransducerModel:
    torch.manual_seed(0)
    model = TransducerModel(LogMel(8), MLPEncoder(8, dim=4, stack=2), LSTMPredictor(V, dim=6), V, joint_dim=D)
    return model.double().eval()


def frames(*shape: int) -> Tensor:
    return 2 * torch.randn(*shape, D, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


# wrong: in padding a token has log P = -1e4, not minus infinity, so a text for which CTC has no room costs -10,000 in a
# batch, and is impossible alone
def test_a_text_without_room_is_as_impossible_beside_padding():
    rows = torch.full((1, 4, 2), 0.5, dtype=torch.float64).log()
    for count in 1, 4:
        scorer = CTCPrefixScorer(rows[:, :count], torch.tensor([1]))
        state = scorer.advance(scorer.start(1), torch.zeros(1, 1).long(), torch.tensor([[1]]))
        assert scorer.score(state)[0, 0, 1].item() == -math.inf


# wrong: and so the n-best list, even the best text, of a clip depends on the clips beside it
@pytest.mark.parametrize(
    "search",
    [
        AttentionBeamSearch(30, ctc_weight=0.3, max_tokens_per_frame=2),
        AttentionBeamSearch(4, ctc_weight=0.3, max_tokens_per_frame=2, end_threshold=1.2),
    ],
    ids=["n-best list", "best text"],
)
def test_with_ctc_a_clip_is_the_same_alone_and_in_a_batch(search):
    model, encoded = las(), frames(2, 6)
    alone = search(model, encoded[:1, :1], torch.tensor([1]))[0]
    beside = search(model, encoded, torch.tensor([1, 6]))[0]
    assert [h.tokens for h in alone] == [h.tokens for h in beside]


# wrong: where CTC alone is no number the search goes on with -10,000 a frame and a finite score, while without_nan's
# policy for every input is: impossible, a score of minus infinity
def test_ctc_that_is_no_number_is_impossible():
    model = las()
    with torch.no_grad():
        model.ctc_head.bias[0] = math.nan
    found = AttentionBeamSearch(4, ctc_weight=0.3)(model, frames(1, 6), torch.tensor([6]))[0]
    assert [h.score for h in found] == [-math.inf]


# wrong: where all choices are alike greedy takes the blank and the beam of one a token (topk takes any of equals):
# such a model is one whose output layer begins at 0
def test_a_beam_of_one_is_greedy_where_all_is_alike():
    model = transducer()
    with torch.no_grad():
        model.output.weight.zero_()
        model.output.bias.zero_()
    inputs = model, frames(1, 6), torch.tensor([6])
    (greedy,), (beam,) = TransducerGreedySearch()(*inputs)[0], TransducerBeamSearch(1)(*inputs)[0]
    assert beam.tokens == greedy.tokens


# wrong: max_tokens_per_frame is refused above 100, max_symbols_per_frame has no limit: with 10**9 (+search.
# max_symbols_per_frame=1000000000) both searches run on one frame for ever where the model is untrained
@pytest.mark.parametrize("kind", [TransducerGreedySearch, TransducerBeamSearch])
def test_symbols_without_end_are_refused(kind):
    with pytest.raises(UserError, match="max_symbols_per_frame"):
        kind(max_symbols_per_frame=10**9)


# wrong: any finite weight is taken, and the sum then overflows: scores that are NaN, texts twice in a list
def test_huge_weights_do_not_end_in_nan():
    try:
        search = TransducerBeamSearch(4, scorers=[(LengthBonus(V), 1e308), (LengthBonus(V), 1e308)])
        found = search(transducer(), frames(1, 6), torch.tensor([6]))[0]
    except UserError:
        return
    assert not any(math.isnan(h.score) for h in found)
    assert len({tuple(h.tokens) for h in found}) == len(found)


# wrong: as above
def test_a_huge_coverage_weight_does_not_end_in_nan():
    try:
        found = AttentionBeamSearch(4, coverage_weight=1e308)(las(), frames(2, 6), torch.tensor([6, 3]))
    except UserError:
        return
    assert not any(math.isnan(h.score) for hypotheses in found for h in hypotheses)
