from __future__ import annotations

import math

import pytest
import torch
from reference.ctc_brute_force import text_probabilities

from src.loss import CTCObjective
from src.loss.ctc import AuxiliaryCTC, frames_needed
from src.utils.errors import UserError


def inputs(log_probs, lengths, tokens, token_lengths):
    return {
        "log_probs": log_probs,
        "log_prob_lengths": torch.tensor(lengths),
        "tokens": torch.tensor(tokens),
        "token_lengths": torch.tensor(token_lengths),
    }


def test_loss_is_brute_force():
    log_probs = torch.randn(2, 5, 4).log_softmax(-1)
    result = CTCObjective()(**inputs(log_probs, [5, 3], [[1, 1, 2], [3, 0, 0]], [3, 1]))
    truth = (
        text_probabilities(log_probs[0].tolist())[1, 1, 2] + text_probabilities(log_probs[1, :3].tolist())[3,]
    )
    assert float(result["loss_sum"]) == pytest.approx(-truth, abs=1e-4)
    assert int(result["normalizer"]) == 4 and not result["too_short"].any()


def test_a_transcript_longer_than_its_frames_costs_nothing_and_is_marked():
    log_probs = torch.randn(2, 3, 4).log_softmax(-1).requires_grad_()
    result = CTCObjective()(
        **inputs(log_probs, [3, 3], [[1, 1, 2], [1, 2, 0]], [3, 2])
    )  # 1, blank, 1, 2 needs four
    assert result["too_short"].tolist() == [True, False]
    assert int(result["normalizer"]) == 2
    assert math.isfinite(result["loss_sum"])
    result["loss_sum"].backward()
    assert log_probs.grad[0].abs().max() == 0 and log_probs.grad[1].abs().max() > 0


def test_sums_make_accumulation_equal_to_one_large_batch():
    log_probs = torch.randn(3, 6, 5).log_softmax(-1)
    whole = inputs(log_probs, [6, 4, 5], [[1, 2, 3], [4, 0, 0], [2, 2, 0]], [3, 1, 2])
    together = CTCObjective()(**whole)
    parts = [CTCObjective()(**{key: value[b : b + 1] for key, value in whole.items()}) for b in range(3)]
    assert float(together["loss_sum"]) == pytest.approx(sum(float(p["loss_sum"]) for p in parts), rel=1e-5)
    assert int(together["normalizer"]) == sum(int(p["normalizer"]) for p in parts)


def test_frames_needed_is_the_least_length_with_a_finite_loss():
    tokens = torch.tensor([[1, 1, 1, 2, 2, 3]])
    for length in range(7):
        needed = int(frames_needed(tokens, torch.tensor([length])))
        for frames in (needed - 1, needed):
            if frames < 1:
                continue
            log_probs = torch.zeros(frames, 1, 4).log_softmax(-1)
            loss = torch.nn.functional.ctc_loss(
                log_probs, tokens[:, :length], torch.tensor([frames]), torch.tensor([length]), reduction="sum"
            )
            assert math.isfinite(loss) == (frames >= needed)


def test_blank_may_be_any_token():
    log_probs = torch.randn(1, 5, 4).log_softmax(-1)
    result = CTCObjective(blank=3)(**inputs(log_probs, [5], [[0, 2, 2]], [3]))
    truth = text_probabilities(log_probs[0].tolist(), blank=3)[0, 2, 2]
    assert float(result["loss_sum"]) == pytest.approx(-truth, abs=1e-4)


def test_half_precision_is_summed_in_float32():
    log_probs = torch.randn(1, 6, 4).log_softmax(-1).bfloat16()
    result = CTCObjective()(**inputs(log_probs, [6], [[1, 2]], [2]))
    assert result["loss_sum"].dtype == torch.float32
    truth = text_probabilities(log_probs[0].tolist())[1, 2]
    assert float(result["loss_sum"]) == pytest.approx(-truth, abs=1e-4)


def test_a_transcript_that_just_fits_counts():
    log_probs = torch.randn(2, 4, 4).log_softmax(-1)
    result = CTCObjective()(**inputs(log_probs, [4, 2], [[1, 1, 2], [1, 2, 0]], [3, 2]))
    assert not result["too_short"].any()
    assert int(result["normalizer"]) == 5
    truth = (
        text_probabilities(log_probs[0].tolist())[1, 1, 2]
        + text_probabilities(log_probs[1, :2].tolist())[1, 2]
    )
    assert float(result["loss_sum"]) == pytest.approx(-truth, abs=1e-4)


def test_beside_another_objective_it_is_weighted_and_clips_too_short_for_it_add_nothing():
    log_probs = torch.randn(2, 4, 5, generator=torch.Generator().manual_seed(0)).log_softmax(-1)
    tokens, token_lengths = (
        torch.tensor([[1, 2, 0], [3, 3, 3]]),
        torch.tensor([2, 3]),
    )  # the second takes five frames
    lengths = torch.tensor([4, 4])
    expected = 0.3 * CTCObjective()(log_probs[:1], lengths[:1], tokens[:1], token_lengths[:1])["loss_sum"]
    loss, part = AuxiliaryCTC(0.3)(log_probs, lengths, tokens, token_lengths)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(part, {"ctc": expected})
    assert AuxiliaryCTC(0.0)(None, None, tokens, token_lengths) == (0.0, {})
    with pytest.raises(UserError, match=r"ctc_weight=0.3 needs a CTC layer; set model.ctc=true"):
        AuxiliaryCTC(0.3)(None, None, tokens, token_lengths)
    for weight in (-0.1, math.nan, math.inf, "abc"):
        with pytest.raises(UserError, match=f"ctc_weight={weight} must be a number of at least 0"):
            AuxiliaryCTC(weight)
    with pytest.raises(UserError, match="blank=x must be a whole number"):
        CTCObjective(blank="x")
