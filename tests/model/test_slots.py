from __future__ import annotations

from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.integrate_and_fire import fire_by_loop

from src.model.ctc_alignment import ctc_alignment
from src.model.slots import CIFPredictor, CTCCompression
from src.model.slots.cif import integrate_and_fire


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_closed_form_is_the_loop(data):
    T = data.draw(st.integers(1, 30))
    weight = st.one_of(
        st.floats(0, 1), st.floats(0, 3.5), st.just(0.0), st.sampled_from([0.25, 0.5, 1.0, 2.0])
    )
    weights = torch.tensor([data.draw(st.lists(weight, min_size=T, max_size=T))], dtype=torch.float64)
    count = int(weights.sum() + 1e-9)
    parts, times = integrate_and_fire(weights, torch.tensor([count]))
    expected = fire_by_loop(weights[0].tolist(), count)
    assert parts[0].tolist() == [pytest.approx(row, abs=1e-7) for row in expected]
    for row, time in zip(expected, times[0].tolist(), strict=True):  # it begins there, and not before
        assert row[time] > 0.9e-6 and max(row[:time], default=0) < 1.1e-6


@pytest.mark.parametrize("first", [0.9999999999999998, 1.0, 1.0000000000000002])
def test_no_slot_begins_in_a_rounding_error(first):
    weights = torch.tensor([[first, 0.0, 1.0, 0.6, 0.4]], dtype=torch.float64)
    assert integrate_and_fire(weights, torch.tensor([3]))[1].tolist() == [[0, 2, 3]]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 9), st.integers(0, 5)), min_size=1, max_size=12), st.integers(0, 10**6)
)
def test_a_slot_begins_with_its_token_or_with_the_pause_before_it(tokens, seed):
    """Tokens of some frames, whose weights sum to 1 however they lie, each after a pause of hardly any weight."""
    generator = torch.Generator().manual_seed(seed)
    weights, begins = [], []
    for frames, pause in tokens:
        begins.append(len(weights))
        quiet = torch.full((pause,), 2e-6, dtype=torch.float64)
        loud = 0.05 + torch.rand(frames, generator=generator, dtype=torch.float64)
        weights += [*quiet, *(loud * (1 - quiet.sum()) / loud.sum())]
    _, times = integrate_and_fire(torch.tensor([weights]), torch.tensor([len(tokens)]))
    assert times[0].tolist() == begins


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 400), st.integers(0, 10**6))
def test_scaled_to_a_text_no_token_is_ever_lost(T, seed):
    generator = torch.Generator().manual_seed(seed)
    weights = torch.rand(4, T, generator=generator)
    counts = torch.randint(0, 2 * T + 1, (4,), generator=generator)
    scaled = weights.double() * (counts / weights.double().sum(1))[:, None]
    parts, times = integrate_and_fire(scaled, counts)
    for row, count in enumerate(counts.tolist()):
        torch.testing.assert_close(parts[row, :count].sum(1), torch.ones(count).double(), rtol=0, atol=1e-7)
        assert not parts[row, count:].any() and times[row, :count].tolist() == sorted(
            times[row, :count].tolist()
        )


def test_its_gradient_is_that_of_the_borders():
    weights = torch.tensor([[0.6, 0.9, 0.5]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda w: integrate_and_fire(w, torch.tensor([1]))[0], weights)


def fixed(alpha: float, **settings) -> CIFPredictor:
    """A predictor whose weights are all ``alpha``."""
    predictor = CIFPredictor(4, **settings).eval()
    with torch.no_grad():
        predictor.output.weight.zero_()
        predictor.output.bias.fill_(torch.tensor(alpha).logit())
    return predictor


def test_a_search_has_a_slot_for_every_full_one_and_the_tail_helps_the_last():
    encoded, lengths = torch.randn(3, 10, 4), torch.tensor([10, 7, 0])
    assert fixed(0.3, tail=0.0)(encoded, lengths).lengths.tolist() == [
        3,
        2,
        0,
    ]  # 3.0 (float32: a bit above), 2.1
    slots = fixed(0.25, tail=0.45)(encoded, lengths)  # 2.5 + 0.45, 1.75 + 0.45, nothing
    assert slots.lengths.tolist() == [2, 2, 0]
    assert slots.times.tolist() == [[0, 4], [0, 4], [0, 0]]  # four frames a slot
    torch.testing.assert_close(slots.counted, torch.tensor([2.5, 1.75, 0.0]).double(), rtol=0, atol=1e-6)
    # The second slot of the second clip is three frames and the tail, in which nothing is heard.
    torch.testing.assert_close(slots.weights[1, 1, 4:7].sum().item(), 0.75, rtol=0, atol=1e-6)


def test_a_token_that_the_tail_filled_is_within_its_clip():
    """A frame of 1 + 2e-7, and a tail that makes the second slot but for these 2e-7."""
    encoded, lengths = torch.randn(2, 10, 4), torch.tensor([10, 1])
    predictor = fixed(0.5, smooth=2 + 4e-7, tail=1 - 1e-7)
    alone, together = predictor(encoded[1:, :1], lengths[1:]), predictor(encoded, lengths)
    assert alone.times.tolist() == [[0, 0]] and together.lengths[1] == 2
    assert together.times[1].tolist()[:2] == [0, 0]


def test_silence_fires_nothing():
    slots = fixed(1e-6)(torch.zeros(1, 100, 4), torch.tensor([100]))
    assert slots.lengths.tolist() == [0] and slots.vectors.shape == (1, 0, 4)


@pytest.mark.parametrize("tail", [-0.1, 1.0, float("nan")])
def test_a_tail_that_fires_alone_or_takes_away_is_refused(tail):
    with pytest.raises(ValueError, match="tail="):
        CIFPredictor(4, tail=tail)


def test_smoothing_and_noise_are_the_papers():
    predictor = fixed(0.5, smooth=0.8, noise=0.1)
    weights = predictor.weights(torch.zeros(1, 3, 4), torch.tensor([2]))
    assert weights[0].tolist() == pytest.approx([0.3, 0.3, 0.0])
    assert not fixed(0.05, noise=0.1).weights(torch.zeros(1, 3, 4), torch.tensor([3])).any()


@pytest.mark.parametrize("with_targets", [True, False])
def test_slots_do_not_depend_on_the_padding(with_targets):
    torch.manual_seed(0)
    targets = (torch.tensor([[1, 2, 3], [2, 1, 0]]), torch.tensor([3, 2])) if with_targets else None
    alone_targets = (torch.tensor([[2, 1]]), torch.tensor([2])) if with_targets else None
    encoded, lengths = torch.randn(2, 12, 4), torch.tensor([12, 7])
    encoded[1, 7:] = 0
    log_probs = torch.randn(2, 12, 4).log_softmax(-1)
    for predictor in CIFPredictor(4).eval(), CTCCompression(4, 4):
        together = predictor(encoded, lengths, log_probs, targets)
        alone = predictor(encoded[1:, :7], lengths[1:], log_probs[1:, :7], alone_targets)
        count = int(alone.lengths)
        assert together.lengths[1] == count
        torch.testing.assert_close(together.vectors[1, :count], alone.vectors[0, :count])
        assert together.times[1, :count].tolist() == alone.times[0, :count].tolist()


def best_alignment(log_probs: torch.Tensor, text: list[int]) -> float | None:
    """The score of the best alignment, by trying all of them."""
    best = None
    for path in product(range(log_probs.size(1)), repeat=len(log_probs)):
        collapsed = [t for i, t in enumerate(path) if t and (i == 0 or path[i - 1] != t)]
        if collapsed == text:
            score = sum(float(log_probs[i, t]) for i, t in enumerate(path))
            best = score if best is None else max(best, score)
    return best


@pytest.mark.parametrize("text", [[], [1], [1, 1], [1, 2], [2, 1, 2], [2, 2, 1]])
def test_viterbi_finds_the_best_of_all_alignments(text):
    tokens, sizes = torch.tensor([[*text, 0]]), torch.tensor([len(text)])
    for seed in range(5):
        log_probs = torch.randn(5, 3, generator=torch.Generator().manual_seed(seed)).log_softmax(-1)
        padded = torch.nn.functional.pad(log_probs, (0, 0, 0, 3))[None]
        positions = ctc_alignment(padded, torch.tensor([5]), tokens, sizes)[0]
        assert positions[5:].tolist() == [-1, -1, -1]
        path = [text[p] if p >= 0 else 0 for p in positions[:5].tolist()]
        score = sum(float(log_probs[i, t]) for i, t in enumerate(path))
        assert score == pytest.approx(best_alignment(log_probs, text), abs=1e-5)
        heard = [p for p in positions.tolist() if p >= 0]
        assert heard == sorted(heard) and set(heard) == set(range(len(text)))


def test_where_all_texts_are_empty_every_frame_is_blank():
    nothing = torch.zeros(1, 0, dtype=torch.long), torch.tensor([0])
    positions = ctc_alignment(torch.randn(1, 4, 3).log_softmax(-1), torch.tensor([4]), *nothing)
    assert positions.tolist() == [[-1] * 4]


def test_a_clip_too_short_for_its_text_has_no_alignment():
    log_probs = torch.randn(2, 2, 3).log_softmax(-1)
    positions = ctc_alignment(
        log_probs, torch.tensor([2, 0]), torch.tensor([[1, 1], [1, 2]]), torch.tensor([2, 1])
    )
    assert positions.tolist() == [[-1, -1], [-1, -1]]
    slots = CTCCompression(4, 3)(
        torch.zeros(2, 2, 4),
        torch.tensor([2, 0]),
        log_probs,
        (torch.tensor([[1, 1], [1, 2]]), torch.tensor([2, 1])),
    )
    assert slots.vectors.isfinite().all() and not slots.weights.any()


def test_what_is_no_number_fills_a_slot_and_is_no_silence():
    """Of a clip of which nothing else is heard; its neighbour hears nothing of it."""
    encoded, lengths = torch.zeros(2, 5, 4), torch.tensor([5, 5])
    encoded[1, 2] = torch.nan
    blanks = torch.eye(3)[0].expand(2, 5, 3).log().clone()
    blanks[1, 2] = torch.nan
    for slots in (
        fixed(0.01)(encoded, lengths),
        CTCCompression(4, 3)(torch.zeros(2, 5, 4), lengths, blanks),
    ):
        assert slots.lengths.tolist() == [0, 1] and slots.vectors[1].isnan().all()
        assert slots.vectors[0].isfinite().all()
