from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from src.loss import AttentionObjective, CTCObjective
from src.utils.errors import UserError

TOKENS, LENGTHS = torch.tensor([[2, 3, 1], [4, 0, 0]]), torch.tensor([3, 1])
FRAMES = torch.tensor([8, 6])


def outputs(seed: int = 0) -> dict:
    generator = torch.Generator().manual_seed(seed)
    return {
        "next_log_probs": torch.randn(2, 4, 5, generator=generator).log_softmax(-1),
        "log_probs": torch.randn(2, 8, 5, generator=generator).log_softmax(-1),
        "log_prob_lengths": FRAMES,
    }


def loss(objective: AttentionObjective, **changes) -> dict:
    return objective(
        **{**outputs(), "encoded_lengths": FRAMES, "tokens": TOKENS, "token_lengths": LENGTHS, **changes}
    )


def test_it_is_the_sum_over_tokens_and_ends():
    log_probs = outputs()["next_log_probs"]
    by_hand = -sum(log_probs[0, u, token] for u, token in enumerate([2, 3, 1, 0]))
    by_hand -= log_probs[1, 0, 4] + log_probs[1, 1, 0]
    found = loss(AttentionObjective(ctc_weight=0).eval())
    assert found["loss_sum"].item() == pytest.approx(by_hand.item(), rel=1e-6)
    assert found["normalizer"].item() == 3 + 1 + 1 + 1


def test_smoothing_is_pytorchs_and_of_training_alone():
    targets = torch.tensor([[2, 3, 1, 0], [4, 0, -100, -100]])
    expected = F.cross_entropy(
        outputs()["next_log_probs"].transpose(1, 2), targets, label_smoothing=0.2, reduction="sum"
    )
    objective = AttentionObjective(ctc_weight=0, label_smoothing=0.2)
    assert loss(objective.train())["loss_sum"].item() == pytest.approx(expected.item(), rel=1e-6)
    plain = loss(AttentionObjective(ctc_weight=0, label_smoothing=0).train())["loss_sum"]
    assert loss(objective.eval())["loss_sum"] == plain


def test_ctc_takes_its_share():
    alone = loss(AttentionObjective(ctc_weight=0).eval())["loss_sum"]
    ctc = CTCObjective()(outputs()["log_probs"], FRAMES, TOKENS, LENGTHS)["loss_sum"]
    found = loss(AttentionObjective(ctc_weight=0.3).eval())
    assert found["loss_sum"].item() == pytest.approx((0.7 * alone + 0.3 * ctc).item(), rel=1e-6)
    assert sum(found["parts"].values()).item() == pytest.approx(found["loss_sum"].item(), rel=1e-6)


def test_padding_counts_for_nothing():
    wider = {
        "next_log_probs": F.pad(outputs()["next_log_probs"], (0, 0, 0, 2), value=-7.0),
        "tokens": F.pad(TOKENS, (0, 2), value=3),
    }
    for objective in AttentionObjective().train(), AttentionObjective().eval():
        assert loss(objective, **wider)["loss_sum"].item() == pytest.approx(
            loss(objective)["loss_sum"].item()
        )


def test_infinities_in_padding_and_without_a_frame_count_for_nothing():
    clean = outputs()["next_log_probs"]
    broken = clean.clone()
    broken[0] = -torch.inf
    broken[1, 2:] = -torch.inf
    for objective in AttentionObjective(ctc_weight=0).train(), AttentionObjective(ctc_weight=0).eval():
        expected, found = (
            loss(objective, next_log_probs=rows, encoded_lengths=torch.tensor([0, 6]))["loss_sum"]
            for rows in (clean, broken)
        )
        assert found == expected and found.isfinite()


def test_a_clip_without_a_frame_is_marked_and_left_out():
    objective = AttentionObjective(ctc_weight=0).eval()
    found = loss(objective, encoded_lengths=torch.tensor([8, 0]))
    first = loss(
        objective,
        next_log_probs=outputs()["next_log_probs"][:1],
        encoded_lengths=FRAMES[:1],
        tokens=TOKENS[:1],
        token_lengths=LENGTHS[:1],
    )
    assert found["too_short"].tolist() == [False, True] and found["normalizer"] == 4
    assert found["loss_sum"] == first["loss_sum"]


@pytest.mark.parametrize(
    "settings",
    [{"ctc_weight": 1.0}, {"ctc_weight": -0.1}, {"ctc_weight": "abc"}, {"label_smoothing": 1.5}]
    + [{"label_smoothing": "abc"}],
)
def test_numbers_out_of_range_are_refused(settings):
    with pytest.raises(UserError, match=r"=.* must be a number from 0 up to \(not including\) 1"):
        AttentionObjective(**settings)


def test_ctc_needs_its_layer():
    with pytest.raises(UserError, match=r"model\.ctc=true"):
        loss(AttentionObjective(ctc_weight=0.3), log_probs=None)
