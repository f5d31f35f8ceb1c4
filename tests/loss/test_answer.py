"""The objective of speech LLMs counts what was heard, and nothing of clips without a frame."""

from __future__ import annotations

import pytest
import torch

from src.loss import AnswerObjective


def test_a_clip_without_a_frame_counts_for_nothing():
    log_probs = torch.tensor([[-1.0, -2.0, -3.0], [-7.0, -7.0, -7.0], [-4.0, 0.0, 0.0]], requires_grad=True)
    right = torch.tensor([[True, False, True], [True, True, True], [True, False, False]])
    losses = AnswerObjective()(
        log_probs, right, torch.tensor([5, 0, 1]), torch.tensor([2, 2, 0]), torch.tensor(0.5)
    )
    assert float(losses["loss_sum"].detach()) == pytest.approx(6 + 4 + 0.5 * 4)
    assert {name: float(part) for name, part in losses["parts"].items()} == {"answer": 10.0, "auxiliary": 2.0}
    assert int(losses["normalizer"]) == 4 and int(losses["measures"]["accuracy"]) == 3
    assert losses["too_short"].tolist() == [False, True, False]
    losses["loss_sum"].backward()
    assert not log_probs.grad[1].any() and (log_probs.grad[0] == -1).all()
