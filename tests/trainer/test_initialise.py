"""Starting from a checkpoint of another shape."""

from __future__ import annotations

import pytest
from omegaconf import OmegaConf

from src.trainer import build, initialise
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


@pytest.mark.parametrize(
    ("recipe", "chosen", "remedy"),
    [
        ("speech_llm", ["+test=tiny_llm", "text_encoder.source=null"], "use model/listener=conformer_xs"),
        ("conformer_las", ["model=conformer_las_s"], "use model=conformer_las_xs"),
        ("paraformer", [], "use model=paraformer_xs"),
        ("deepspeech2_ctc", [], "use model=conformer_ctc_xs"),
    ],
)
def test_it_is_named_in_the_family_that_is_trained(recipe, chosen, remedy):
    with pytest.raises(UserError, match=f"; {remedy}$"):
        initialise_from(None, "checkpoints/demo", None, _model_of(recipe, *chosen))


def test_another_familys_is_named_where_this_one_has_none():
    parts = _model_of("deepspeech2_ctc")
    fixed = {part: initialise._completed(parts[part]) for part in ("frontend", "encoder")}
    asked = initialise._choice_with(fixed, _model_of("conformer_las"))
    assert asked == "frontend and encoder of model=deepspeech2_ctc"


@pytest.mark.parametrize("listener", ["tiny_whisper", "whisper"])
def test_a_listener_is_named_whatever_its_revision(listener):
    model = _model_of("speech_llm", f"model/listener={listener}", "text_encoder.source=null")
    for part in ("frontend", "encoder"):
        model[part]["revision"] = "a" * 40
    asked = initialise._choice_with(initialise._fixed_parts(model), model)
    assert asked == f"model/listener={listener}"


def test_a_checkpoint_that_is_not_there_is_told_before_a_model_is_made(make_trainer, monkeypatch):
    make_trainer("trainer.max_steps=1").run()
    again = ["trainer.max_steps=1", "trainer.init_from=nowhere"]
    make_trainer(*again, "trainer.resume_from=auto")  # where it began is of no concern any more
    monkeypatch.setattr(build, "build_model", None)
    for more in ((), ("trainer.resume_from=auto", "run_name=new")):
        with pytest.raises(UserError, match="^checkpoint nowhere does not exist; give"):
            make_trainer(*again, *more)


def _model_of(recipe, *overrides):
    return OmegaConf.to_container(compose(recipe, list(overrides)).model)
