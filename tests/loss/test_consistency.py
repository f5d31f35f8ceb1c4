from __future__ import annotations

import pytest
import torch

from src.loss import ConsistentCTCObjective, CTCObjective
from src.model import CTCModel
from src.model.encoders import MLPEncoder
from src.trainer.step import TrainingStep
from src.transforms import LogMel, SpecAugment
from src.utils.errors import UserError


def targets(views: int) -> dict:
    """Two clips, the second one shorter and the third's transcript too long for its frames."""
    batch = {
        "log_prob_lengths": torch.tensor([6, 4, 2]),
        "tokens": torch.tensor([[1, 2, 3], [4, 0, 0], [2, 2, 2]]),
        "token_lengths": torch.tensor([3, 1, 3]),
    }
    return {key: torch.cat([value] * views) for key, value in batch.items()}


def test_it_is_the_mean_ctc_loss_and_the_paper_s_distance_over_valid_frames():
    one, two = torch.randn(2, 3, 6, 5).log_softmax(-1)
    losses = ConsistentCTCObjective(weight=0.3)(log_probs=torch.cat([one, two]), **targets(2))
    ctc = [float(CTCObjective()(log_probs=view, **targets(1))["loss_sum"]) for view in (one, two)]
    distance = 0.0
    for clip, frames in enumerate((6, 4, 2)):
        for p, q in zip(one[clip, :frames].exp(), two[clip, :frames].exp(), strict=True):
            distance += float((p * (p / q).log()).sum() + (q * (q / p).log()).sum()) / 2
    assert float(losses["loss_sum"]) == pytest.approx(sum(ctc) / 2 + 0.3 * distance, rel=1e-5)
    assert float(losses["parts"]["ctc"]) == pytest.approx(sum(ctc) / 2, rel=1e-5)
    assert float(losses["parts"]["consistency"]) == pytest.approx(0.3 * distance, rel=1e-5)
    assert int(losses["normalizer"]) == 4 and losses["too_short"].tolist() == [False, False, True]


def test_no_gradient_flows_through_a_target():
    one, two = torch.randn(2, 3, 6, 5).requires_grad_()
    objective = ConsistentCTCObjective(weight=1.0)

    def consistency_gradient(first, second, wanted):
        both = torch.cat([first, second]).log_softmax(-1)
        total = objective(log_probs=both, **targets(2))["loss_sum"]
        ctc = CTCObjective()(log_probs=both, **targets(2))["loss_sum"] / 2
        return torch.autograd.grad(total - ctc, wanted)[0]

    # d KL(q || softmax(z)) / dz = softmax(z) - q, halved, in valid frames; nothing comes through q itself.
    expected = 0.5 * (one.softmax(-1) - two.softmax(-1))
    valid = torch.arange(6) < targets(1)["log_prob_lengths"][:, None]
    expected = expected * valid.unsqueeze(-1)
    assert torch.allclose(consistency_gradient(one, two, one), expected, atol=1e-5)
    assert torch.allclose(consistency_gradient(one, two, two), -expected, atol=1e-5)


def step_and_batch():
    torch.manual_seed(0)
    model = CTCModel(LogMel(16), MLPEncoder(16, dim=8, stack=4), vocab_size=5)
    step = TrainingStep(model, ConsistentCTCObjective(), SpecAugment(freq_width=8, time_fraction=0.3))
    batch = {
        "audio": torch.randn(2, 16000),
        "audio_lengths": torch.tensor([16000, 9000]),
        "tokens": torch.tensor([[1, 2], [3, 0]]),
        "token_lengths": torch.tensor([2, 1]),
        "utterance_id": ["a", "b"],
        "skipped": [],
        "spec_draws": torch.rand(2, step.draws_per_clip),
    }
    return step, batch


def test_the_step_shows_each_clip_twice_with_masks_of_its_own():
    step, batch = step_and_batch()
    losses, outputs = step(batch)
    assert outputs["log_probs"].size(0) == 4 and losses["too_short"].shape == (2,)
    assert float(losses["parts"]["consistency"]) > 0
    halves = outputs["log_probs"].chunk(2)
    assert not torch.allclose(*halves)
    same = batch | {"spec_draws": torch.cat([batch["spec_draws"].chunk(2, 1)[0]] * 2, 1)}
    losses, outputs = step(same)
    assert torch.allclose(*outputs["log_probs"].chunk(2))
    assert float(losses["parts"]["consistency"]) == pytest.approx(0, abs=1e-5)


def test_in_evaluation_it_is_ctc():
    step, batch = step_and_batch()
    losses, outputs = step.eval()(batch)
    plain = CTCObjective()(**batch, **outputs)
    assert outputs["log_probs"].size(0) == 2
    assert float(losses["loss_sum"]) == float(plain["loss_sum"]) and set(losses["parts"]) == {"ctc"}


def test_a_negative_weight_is_refused():
    with pytest.raises(UserError, match="weight=-1"):
        ConsistentCTCObjective(weight=-1)
