"""Starting from a checkpoint of another shape."""

from __future__ import annotations

import pytest

from src.trainer.build import build_model
from src.trainer.initialise import initialise_from
from src.utils.errors import UserError
from src.utils.hydra_door import compose


def test_what_is_not_taken_over_is_said():
    config = compose("conformer_las_an4", ["model.speller.num_layers=1"])
    text_encoder, model_config, model = build_model(config)
    said = initialise_from(model, "checkpoints/demo", text_encoder, model_config)
    assert "start anew because it has no layers of these names (ctc_head, from_encoder, speller)" in said
    assert said.endswith("2 of its own have no place here (head)")


def test_the_config_that_a_checkpoint_was_trained_with_is_named():
    """``checkpoints/demo`` is an ``xs`` with another dropout, which its weights know nothing of."""
    small = compose("conformer_ctc", ["model=conformer_ctc_s"]).model
    with pytest.raises(UserError, match=r"its encoder is another one \(.*\); use model=conformer_ctc_xs"):
        initialise_from(None, "checkpoints/demo", None, dict(small))
