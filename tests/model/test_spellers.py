from __future__ import annotations

import pytest
import torch
from torch import Tensor

from src.model import LASModel
from src.model.encoders import MLPEncoder
from src.model.spellers import LSTMSpeller, TransformerSpeller
from src.model.spellers.lstm import LocationAttention
from src.transforms import LogMel
from src.utils.errors import UserError

V, D, T = 7, 8, 9
SPELLERS = {
    "lstm": lambda: LSTMSpeller(V, D, num_layers=2, attention_dim=6),
    "transformer": lambda: TransformerSpeller(V, D, num_layers=2, num_heads=2),
}


@pytest.fixture(params=SPELLERS)
def speller(request):
    torch.manual_seed(0)
    return SPELLERS[request.param]().double().eval()


def heard(B: int, seed: int = 0) -> Tensor:
    return torch.randn(B, T, D, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


TEXTS = torch.tensor([[1, 2, 2, 6], [3, 3, 0, 0]])
LENGTHS = torch.tensor([9, 4])


@torch.no_grad()
def test_token_by_token_it_says_what_it_says_of_the_whole_text(speller):
    whole = speller(TEXTS, heard(2), LENGTHS)
    memory = speller.remember(heard(2), LENGTHS)
    state = speller.begin(memory, 1)
    heads = speller.looked(TEXTS, heard(2), LENGTHS)
    for u in range(5):
        token = torch.zeros(2, 1, dtype=torch.long) if u == 0 else TEXTS[:, u - 1, None]
        logits, weights, state = speller.step(token, state, memory)
        torch.testing.assert_close(logits[:, 0], whole[:, u])
        torch.testing.assert_close(weights.sum(-1), torch.ones(2, 1), check_dtype=False)
        torch.testing.assert_close(heads[:, :, u].mean(1), weights[:, 0])
        assert not weights[1, :, 4:].any(), "it looked at padding"


@torch.no_grad()
def test_hypotheses_of_one_utterance_do_not_know_of_each_other(speller):
    memory, alone = speller.remember(heard(2), LENGTHS), []
    for texts in TEXTS, TEXTS.flip(1):
        state = speller.begin(memory, 1)
        for token in texts.split(1, dim=1):
            logits, _, state = speller.step(token, state, memory)
        alone.append(logits)
    state = speller.begin(memory, 2)
    for u in range(4):
        # In the first steps in the other's slot, as a beam search may move them.
        swapped = u < 2
        tokens = torch.stack([TEXTS[:, u], TEXTS[:, 3 - u]], 1)
        logits, _, state = speller.step(tokens.flip(1) if swapped else tokens, state, memory)
        if u == 1:
            state = tuple(part.index_select(0, torch.tensor([1, 0, 3, 2])) for part in state)
    torch.testing.assert_close(logits, torch.cat(alone, 1))


@torch.no_grad()
def test_a_text_is_scored_the_same_alone_and_in_a_batch(speller):
    together = speller(TEXTS, heard(2), LENGTHS)
    alone = speller(TEXTS[1:, :2], heard(2)[1:, :4], LENGTHS[1:])
    torch.testing.assert_close(alone[0], together[1, :3])


def test_no_token_knows_of_those_after_it(speller):
    other = TEXTS.clone()
    other[:, 2] = 5
    one, two = speller(TEXTS, heard(2), LENGTHS), speller(other, heard(2), LENGTHS)
    torch.testing.assert_close(one[:, :3], two[:, :3])
    assert (one[:, 3] - two[:, 3]).abs().max() > 1e-6


def test_a_clip_without_a_frame_is_no_nan(speller):
    assert speller(TEXTS, heard(2), torch.tensor([0, 4])).isfinite().all()


def test_location_attention_is_the_papers_sum_term_by_term():
    torch.manual_seed(1)
    attention = LocationAttention(3, 4, hidden_dim=5, channels=2, kernel_size=3).double()
    query, frames = torch.randn(1, 1, 3).double(), torch.randn(1, 6, 4).double()
    before = torch.rand(1, 1, 6).double()
    valid = torch.tensor([[True] * 5 + [False]])
    context, weights = attention(query, attention.from_frame(frames), frames, valid, before)
    kernel = attention.location.weight[:, 0]
    energies = []
    for t in range(5):
        seen = [before[0, 0, t + k] if 0 <= t + k < 6 else torch.tensor(0.0).double() for k in (-1, 0, 1)]
        located = attention.from_location.weight @ (kernel @ torch.stack(seen))
        total = attention.from_query(query[0, 0]) + attention.from_frame.weight @ frames[0, t] + located
        energies.append(attention.energy.weight[0] @ total.tanh())
    expected = torch.stack(energies).softmax(0)
    torch.testing.assert_close(weights[0, 0, :5], expected, check_dtype=False)
    torch.testing.assert_close(context[0, 0], expected @ frames[0, :5], rtol=1e-5, atol=1e-6)


def test_scheduled_sampling_feeds_it_its_own_tokens_in_training_alone():
    torch.manual_seed(2)
    speller = LSTMSpeller(V, D, dropout=0.0, sampling=0.99)
    with torch.no_grad():  # sure of token 4, whatever it hears
        speller.output.weight.zero_()
        speller.output.bias[4] = 50.0
    fed = []
    speller.embedding.register_forward_hook(lambda _, inputs, __: fed.append(inputs[0][:, 0].tolist()))
    long = torch.ones(1, 200, dtype=torch.long)
    speller(long, heard(1).float(), torch.tensor([9]))
    fed_in_training = [token for step in fed for token in step]
    assert fed_in_training[0] == 0 and 170 < fed_in_training.count(4) < 200
    fed.clear()
    speller.eval()(long, heard(1).float(), torch.tensor([9]))
    assert [token for step in fed for token in step] == [0] + [1] * 200


def test_scheduled_sampling_draws_from_the_distribution_for_each_text_on_its_own():
    torch.manual_seed(2)
    speller = LSTMSpeller(V, D, dropout=0.0, sampling=0.5)
    with torch.no_grad():  # tokens 4 and 5 in the ratio of two to one, whatever it hears
        speller.output.weight.zero_()
        speller.output.bias.fill_(-50.0)
        speller.output.bias[4:6] = torch.tensor([2.0, 1.0]).log()
    fed = []
    speller.embedding.register_forward_hook(lambda _, inputs, __: fed.append(inputs[0][:, 0]))
    speller(torch.ones(300, 3, dtype=torch.long), heard(300).float(), torch.full((300,), 9))
    assert not fed[0].any()
    for tokens in fed[1:]:
        shares = [(tokens == token).float().mean().item() for token in (1, 4, 5)]
        assert shares == pytest.approx([1 / 2, 1 / 3, 1 / 6], abs=0.08)


@pytest.mark.parametrize(
    ("kind", "setting"),
    [(LSTMSpeller, name) for name in ("dim", "num_layers", "attention_dim")]
    + [(TransformerSpeller, name) for name in ("dim", "num_layers", "num_heads", "ff_multiple")],
)
def test_sizes_of_nothing_are_named(kind, setting):
    with pytest.raises(UserError, match=f"{setting}=0 must be a whole number of at least 1"):
        kind(V, **{setting: 0})


def test_a_speller_or_a_share_that_is_none_is_named():
    with pytest.raises(UserError, match="speller=null must be a part of the model"):
        LASModel(LogMel(8), MLPEncoder(8, dim=6, stack=2), None, V)
    with pytest.raises(UserError, match=r"sampling=1.0 must be a number from 0 up to \(not including\) 1"):
        LSTMSpeller(V, sampling=1.0)


@pytest.mark.parametrize("kind", SPELLERS)
def test_the_model_shows_where_it_looked(kind):
    torch.manual_seed(3)
    model = LASModel(LogMel(8), MLPEncoder(8, dim=6, stack=2), SPELLERS[kind](), V, ctc=True).eval()
    features = torch.randn(2, 18, 8), torch.tensor([18, 7])
    outputs, maps = model(*features, TEXTS), model.attention(*features, TEXTS)
    assert maps.shape == (2, 5, 9) and not maps[1, :, 4:].any()
    torch.testing.assert_close(maps.sum(-1), torch.ones(2, 5))
    assert outputs["log_probs"].shape == (2, 9, V)
