from __future__ import annotations

import pytest
import torch

from src.loss import CTCObjective, TransducerObjective
from src.loss.fused_transducer import fused_transducer_loss
from src.utils.errors import UserError

TOKENS, LENGTHS = torch.tensor([[2, 3, 1], [4, 1, 0]]), torch.tensor([3, 2])
FRAMES = torch.tensor([8, 6])


def outputs(frames: int = 8) -> dict:
    """What a model says of two clips."""
    generator = torch.Generator().manual_seed(0)
    shapes = {"joint_encoded": (2, frames, 4), "joint_predicted": (2, 4, 4), "joint_weight": (6, 4)}
    shapes |= {"joint_bias": (6,), "log_probs": (2, frames, 6)}
    found = {name: torch.randn(*shape, generator=generator) for name, shape in shapes.items()}
    found["log_probs"] = found["log_probs"].log_softmax(-1)
    return {**found, "encoded_lengths": FRAMES, "log_prob_lengths": FRAMES}


def loss(objective: TransducerObjective, frames: int = 8, **changes) -> dict:
    return objective(**{**outputs(frames), "tokens": TOKENS, "token_lengths": LENGTHS, **changes})


def transducer_losses(blank: int = 0, **changes) -> torch.Tensor:
    given = {**outputs(), **changes}
    joined = [given[f"joint_{name}"] for name in ("encoded", "predicted", "weight", "bias")]
    return fused_transducer_loss(*joined, TOKENS, given["encoded_lengths"], LENGTHS, blank, "none")


@pytest.mark.parametrize("blank", [0, 5])
def test_it_is_the_transducers_loss_and_ctcs_share(blank):
    transducer = transducer_losses(blank).sum().item()
    ctc = CTCObjective(blank)(outputs()["log_probs"], FRAMES, TOKENS, LENGTHS)["loss_sum"].item()
    found = loss(TransducerObjective(0.3, blank))
    assert found["loss_sum"].item() == pytest.approx(transducer + 0.3 * ctc, rel=1e-6)
    assert found["parts"] == pytest.approx({"transducer": transducer, "ctc": 0.3 * ctc}, rel=1e-6)
    assert found["normalizer"] == 5 and not found["too_short"].any()
    alone = loss(TransducerObjective(0, blank), log_probs=None)
    assert alone["loss_sum"].item() == pytest.approx(transducer, rel=1e-6) and [*alone["parts"]] == [
        "transducer"
    ]


def test_a_clip_without_a_frame_is_marked_and_left_out():
    lengths = torch.tensor([8, 0])
    encoded = outputs()["joint_encoded"].requires_grad_()
    found = loss(TransducerObjective(0), encoded_lengths=lengths, joint_encoded=encoded)
    assert found["loss_sum"].item() == pytest.approx(transducer_losses()[0].item(), rel=1e-6)
    assert found["too_short"].tolist() == [False, True] and found["normalizer"] == 3
    found["loss_sum"].backward()
    assert encoded.grad[0].any() and not encoded.grad[1].any()


def test_clips_may_all_be_without_a_frame():
    none = torch.zeros(2, dtype=torch.long)
    found = loss(TransducerObjective(0), 0, encoded_lengths=none)
    assert found["too_short"].all() and found["loss_sum"] == 0 and found["normalizer"] == 0


def test_ctc_needs_its_layer():
    with pytest.raises(UserError, match=r"model\.ctc=true"):
        loss(TransducerObjective(0.3), log_probs=None)
