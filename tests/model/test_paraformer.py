from __future__ import annotations

import pytest
import torch
from torch import nn

from src.decoding import CTCGreedySearch, ParaformerBeamSearch, ParaformerGreedySearch
from src.loss import CTCObjective, ParaformerObjective, WordErrorObjective
from src.model import ParaformerModel, ParallelDecoder
from src.model.encoders import MLPEncoder
from src.model.slots import CIFPredictor, CTCCompression
from src.transforms import LogMel
from src.utils.errors import UserError

V, D = 7, 8
TOKENS, LENGTHS = torch.tensor([[1, 2, 2, 6], [3, 5, 0, 0]]), torch.tensor([4, 2])
FEATURES, FRAMES = torch.randn(2, 24, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([24, 14])
FEATURES[1, 14:] = 0
PREDICTORS = {"cif": lambda: CIFPredictor(6), "compression": lambda: CTCCompression(6, V)}


def paraformer(
    predictor: str = "cif", memory_kernel: int | None = None, ratio: float = 0.5
) -> ParaformerModel:
    torch.manual_seed(0)
    decoder = ParallelDecoder(V, D, num_layers=2, num_heads=2, memory_kernel=memory_kernel)
    encoder = MLPEncoder(8, dim=6, stack=2)
    return ParaformerModel(LogMel(8), encoder, PREDICTORS[predictor](), decoder, V, sampling_ratio=ratio)


@pytest.mark.parametrize("predictor", PREDICTORS)
@pytest.mark.parametrize("memory_kernel", [None, 3])
def test_a_clip_is_the_same_alone_and_in_a_batch(predictor, memory_kernel):
    model = paraformer(predictor, memory_kernel).eval()
    together = model(FEATURES, FRAMES, TOKENS, LENGTHS)["slot_log_probs"]
    alone = model(FEATURES[1:, :14], FRAMES[1:], TOKENS[1:, :2], LENGTHS[1:])["slot_log_probs"]
    torch.testing.assert_close(together[1, :2], alone[0])
    written = [
        model.write(*model.encode(FEATURES, FRAMES)),
        model.write(*model.encode(FEATURES[1:, :14], FRAMES[1:])),
    ]
    count = int(written[1][1].lengths)
    assert written[0][1].lengths[1] == count
    torch.testing.assert_close(written[0][0][1, :count], written[1][0][0, :count])


def test_every_slot_sees_the_ones_after_it():
    decoder = ParallelDecoder(V, D, num_layers=1, num_heads=2).eval()
    slots, heard = torch.randn(1, 4, D), torch.randn(1, 9, D)
    changed = slots.clone()
    changed[:, 3] = torch.randn(D)
    one = decoder(slots, torch.tensor([4]), heard, torch.tensor([9]))
    two = decoder(changed, torch.tensor([4]), heard, torch.tensor([9]))
    assert (one[:, 0] - two[:, 0]).abs().max() > 1e-5


@torch.inference_mode()
def test_what_it_shows_of_its_heads_is_where_they_look():
    """The frames' values, weighted by what is shown, are what the attention of the last layer returns."""
    model = paraformer().eval()
    attention = model.decoder.layers[-1].frame_attention
    calls = []
    attention.register_forward_hook(lambda _, inputs, output: calls.append((inputs[2], output)))
    encoded, lengths = model.encode(FEATURES, FRAMES)
    _, slots = model.write(encoded, lengths)
    heads = model.looked(slots, encoded, lengths)
    ((values, output),) = calls
    assert heads.shape == (2, 2, int(slots.lengths.max()), 12) and not heads[1, :, :, 7:].any()
    torch.testing.assert_close(heads.sum(-1), torch.ones(heads.shape[:3]))
    torch.testing.assert_close(attention.output((heads @ values).transpose(1, 2).flatten(2)), output)


def test_in_evaluation_no_target_is_seen():
    """Only how many tokens there are: any two texts of a length get the same answers."""
    model = paraformer().eval()
    one = model(FEATURES, FRAMES, TOKENS, LENGTHS)["slot_log_probs"]
    two = model(FEATURES, FRAMES, (TOKENS + 1) % V, LENGTHS)["slot_log_probs"]
    torch.testing.assert_close(one, two)


@pytest.mark.parametrize("training", [True, False])
def test_where_an_alignment_of_the_target_was_seen_no_accuracy_is_measured(training):
    """Any two texts of a length get other answers, in evaluation, too; a search is told nothing."""
    model = paraformer("compression").train(training)
    outputs = model(FEATURES, FRAMES, TOKENS, LENGTHS)
    objective = ParaformerObjective().train(training)
    assert "first_tokens" not in outputs
    assert objective(**outputs, tokens=TOKENS, token_lengths=LENGTHS)["measures"] == {}
    other = model(FEATURES, FRAMES, TOKENS % 6 + 1, LENGTHS)["slot_log_probs"]
    assert (outputs["slot_log_probs"] - other).abs().max() > 1e-3
    assert not model.write(*model.encode(FEATURES, FRAMES))[1].aligned


def recorded(model: ParaformerModel) -> list[torch.Tensor]:
    """What the decoder is given, pass by pass."""
    seen: list[torch.Tensor] = []
    model.decoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
    return seen


@pytest.mark.parametrize(
    "ratio,written,shown", [(0.5, "wrong", 2), (1.0, "wrong", 4), (0.75, "wrong", 3), (0.5, "right", 0)]
)
def test_the_second_pass_shows_a_share_of_what_the_first_had_wrong(ratio, written, shown):
    model = paraformer(ratio=ratio).train()
    model.decoder.output = nn.Linear(D, V)
    text = torch.tensor([[4, 4, 4, 4]])
    with torch.no_grad():
        model.decoder.output.weight.zero_()
        model.decoder.output.bias.copy_(
            nn.functional.one_hot(torch.tensor(4 if written == "right" else 5), V) * 9.0
        )
    seen = recorded(model)
    outputs = model(FEATURES[:1], FRAMES[:1], text, torch.tensor([4]))
    assert outputs["shown"].tolist() == [shown]
    assert outputs["first_tokens"].tolist() == [[4 if written == "right" else 5] * 4]
    first, second = seen
    embedding = model.decoder.embedding(text)
    replaced = [torch.equal(second[0, u], embedding[0, u]) for u in range(4)]
    assert sum(replaced) == shown
    for u in range(4):
        assert replaced[u] or torch.equal(second[0, u], first[0, u])


def test_half_of_three_mistakes_is_one_and_padding_is_none():
    """Everywhere 5 is written: three mistakes of four tokens, and none of two beside padding."""
    model = paraformer(ratio=0.5).train()
    with torch.no_grad():
        model.decoder.output.weight.zero_()
        model.decoder.output.bias.copy_(nn.functional.one_hot(torch.tensor(5), V) * 9.0)
    text = torch.tensor([[4, 4, 4, 5], [5, 5, 0, 0]])
    assert model(FEATURES, FRAMES, text, LENGTHS)["shown"].tolist() == [1, 0]


def test_which_places_are_shown_is_drawn_at_random_and_never_padding():
    model, places = paraformer().train(), set()
    seen = recorded(model)
    for seed in range(30):
        torch.manual_seed(seed)
        seen.clear()
        model(FEATURES, FRAMES, TOKENS, LENGTHS)
        changed = (seen[0] != seen[1]).any(-1)
        assert not changed[1, 2:].any()
        places.add(tuple(changed[0].tolist()))
    assert len(places) > 3


def test_the_first_pass_has_no_gradient_and_the_second_has():
    model = paraformer(ratio=0.5).train()
    gradients = []
    model.decoder.register_forward_hook(lambda _, __, logits: gradients.append(logits.requires_grad))
    model(FEATURES, FRAMES, TOKENS, LENGTHS)
    assert gradients == [False, True]


def test_the_objective_is_the_sum_of_its_parts_worked_by_hand():
    model = paraformer().eval()
    outputs = model(FEATURES, FRAMES, TOKENS, LENGTHS)
    found = ParaformerObjective(0.3, 0.5).eval()(**outputs, tokens=TOKENS, token_lengths=LENGTHS)
    log_probs = outputs["slot_log_probs"]
    tokens = (
        -sum(log_probs[0, u, t] for u, t in enumerate([1, 2, 2, 6])) - log_probs[1, 0, 3] - log_probs[1, 1, 5]
    )
    off = abs(outputs["counted"][0] - 4) + abs(outputs["counted"][1] - 2)
    assert found["parts"]["tokens"].item() == pytest.approx(0.7 * tokens.item(), rel=1e-5)
    assert found["parts"]["quantity"].item() == pytest.approx(0.5 * off.item(), rel=1e-5)
    assert sum(found["parts"].values()).item() == pytest.approx(found["loss_sum"].item(), rel=1e-6)
    assert found["normalizer"] == 6
    right = int(
        (outputs["first_tokens"] == TOKENS)[0].sum() + (outputs["first_tokens"] == TOKENS)[1, :2].sum()
    )
    assert found["measures"]["first_pass_accuracy"] == right


def test_accuracy_is_of_the_first_pass_and_not_of_what_was_shown_right_tokens():
    right = nn.functional.one_hot(TOKENS, V).float().mul(9).log_softmax(-1)
    outputs = {"slot_log_probs": right, "encoded_lengths": FRAMES, "tokens": TOKENS, "token_lengths": LENGTHS}
    first = torch.tensor([[1, 2, 3, 3], [4, 5, 0, 0]])  # 1 and 2, and 5; the zeros are padding
    assert ParaformerObjective(0)(**outputs, first_tokens=first)["measures"]["first_pass_accuracy"] == 3


@pytest.mark.parametrize("training", [True, False])
def test_a_clip_without_a_frame_takes_no_part_in_the_loss(training):
    """Its neighbour has the loss that it has alone."""
    log_probs = torch.randn(2, 4, V, generator=torch.Generator().manual_seed(0)).log_softmax(-1)
    first, counted = log_probs[..., 1:].argmax(-1) + 1, torch.tensor([2.5, 0.0])
    objective = ParaformerObjective(0).train(training)

    def found(clips: int) -> dict:
        tensors = (torch.tensor([5, 0]), TOKENS, LENGTHS, log_probs, first, counted)
        return objective(*(tensor[:clips] for tensor in tensors))

    alone, together = found(1), found(2)
    assert together["too_short"].tolist() == [False, True] and together["normalizer"] == 4
    torch.testing.assert_close(together["loss_sum"], alone["loss_sum"])
    assert together["parts"] == alone["parts"] and together["measures"] == alone["measures"]


def test_the_quantity_teaches_the_predictor_to_count():
    model = paraformer()
    objective = ParaformerObjective(ctc_weight=0, quantity_weight=1.0)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(150):
        losses = objective(**model(FEATURES, FRAMES, TOKENS, LENGTHS), tokens=TOKENS, token_lengths=LENGTHS)
        optimizer.zero_grad()
        losses["loss_sum"].backward()
        optimizer.step()
    model.eval()
    assert model.write(*model.encode(FEATURES, FRAMES))[1].lengths.tolist() == [4, 2]


@pytest.mark.parametrize(
    "settings",
    [
        {"ctc_weight": 1.0},
        {"label_smoothing": -0.1},
        {"quantity_weight": -1},
        {"quantity_weight": float("inf")},
    ],
)
def test_numbers_out_of_range_are_refused(settings):
    with pytest.raises(UserError, match="must be"):
        ParaformerObjective(**settings)


def test_word_errors_are_of_texts_that_no_right_token_was_shown_to():
    objective = WordErrorObjective([""] * V, objective=ParaformerObjective(0)).train()
    batch = {"tokens": TOKENS, "token_lengths": LENGTHS, "text": ["a b", "c"]}
    with pytest.raises(UserError, match="sampling_ratio=0"):
        objective(**paraformer(ratio=0.1).train()(FEATURES, FRAMES, TOKENS, LENGTHS), **batch)
    for model in paraformer(ratio=0.0).train(), paraformer(ratio=0.1).eval():
        assert objective(**model(FEATURES, FRAMES, TOKENS, LENGTHS), **batch)["loss_sum"].isfinite()


def test_a_compression_without_ctc_is_refused_in_one_line():
    model = paraformer("compression")
    model.ctc_head = None
    with pytest.raises(UserError, match="model.ctc=true"):
        model(FEATURES, FRAMES, TOKENS, LENGTHS)
    with pytest.raises(UserError, match="model.ctc=true"):
        model.write(*model.encode(FEATURES, FRAMES))


def test_without_a_predictor_the_searches_write_what_ctc_hears():
    """Greedy the text of CTC's greedy search, its tokens where they begin; the beam's best score is greedy's."""
    torch.manual_seed(0)
    model = ParaformerModel(LogMel(8), MLPEncoder(8, dim=6, stack=2), None, None, V).eval()
    with torch.no_grad():
        model.ctc_head.weight.mul_(10)
    encoded, lengths = model.encode(torch.randn(20, 60, 8), torch.tensor([60, 31, 0, 2] * 5))
    theirs = CTCGreedySearch()(model.ctc_log_probs(encoded), lengths)
    greedy = ParaformerGreedySearch()(model, encoded, lengths)
    assert sum(len(ours.tokens) for (ours,) in greedy) > 50
    for (ours,), (other,) in zip(greedy, theirs, strict=True):
        assert (ours.tokens, ours.token_times) == (other.tokens, other.token_times)
    beam = ParaformerBeamSearch(4)(model, encoded, lengths)
    assert [row[0].score for row in beam] == pytest.approx([row[0].score for row in greedy], abs=1e-4)


def test_without_a_predictor_the_objective_is_that_of_ctc():
    model = ParaformerModel(LogMel(8), MLPEncoder(8, dim=6, stack=2), None, None, V)
    outputs = model(FEATURES, FRAMES, TOKENS, LENGTHS)
    batch = {**outputs, "tokens": TOKENS, "token_lengths": LENGTHS}
    ours, theirs = ParaformerObjective(0.3)(**batch), CTCObjective()(**batch)
    assert outputs.keys() == {"encoded", "encoded_lengths", "log_probs", "log_prob_lengths"}
    assert ours["loss_sum"] == theirs["loss_sum"] and ours["normalizer"] == theirs["normalizer"] == 6


@pytest.mark.parametrize(
    ("predictor", "decoder", "ctc", "word"),
    [
        (False, True, True, "model/predictor=none"),
        (False, False, False, "model.ctc=true"),
        (True, False, True, "decoder=null"),
    ],
)
def test_half_a_paraformer_is_refused_in_one_line(predictor, decoder, ctc, word):
    parts = (
        CIFPredictor(6) if predictor else None,
        ParallelDecoder(V, D, num_layers=1, num_heads=2) if decoder else None,
    )
    with pytest.raises(UserError, match=word):
        ParaformerModel(LogMel(8), MLPEncoder(8, dim=6, stack=2), *parts, V, ctc=ctc)
