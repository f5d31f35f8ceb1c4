"""Model, objective and searches before a training: whether they are of one family and can be used together."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn

from src.decoding.settings import require_blank_of_models
from src.model import SpeechModel
from src.recognizer import is_search_for
from src.trainer.step import TrainingStep
from src.utils.audio import SAMPLE_RATE
from src.utils.errors import UserError
from src.utils.hydra_door import CONFIGS


@torch.no_grad()
def try_out_parts(model: nn.Module, objective: nn.Module, searches: dict[str, Callable]) -> None:
    """Model, objective and searches on a second of sound: what does not fit together fails now, in one line.

    Raises ``UserError``; for parts of another family with the names of those that the model's has.
    """
    one = torch.ones(1, 1, dtype=torch.long)
    batch = {"tokens": one, "token_lengths": one[0], "text": ["a"], "utterance_id": ["a second of sound"]}
    if isinstance(model, SpeechModel):
        batch["audio"] = torch.linspace(-1, 1, SAMPLE_RATE)[None]
        batch["audio_lengths"] = torch.tensor([SAMPLE_RATE])
    for part in (objective, *searches.values()):
        require_blank_of_models(part)
    family = type(model).__name__
    try:
        given, outputs = TrainingStep(model, dict).eval()(batch)  # what an objective is called with
        if not _takes(objective, given):
            kind = type(objective).__name__
            raise UserError(f"objective: {kind} is no objective for a {family}; {_remedy(model)}")
        objective.eval()(**given)
        for name, search in searches.items():
            inputs = model.search_inputs(outputs)
            if not is_search_for(search, inputs):
                kind = type(search).__name__
                raise UserError(f"decoders.{name}: {kind} is no search for a {family}; {_remedy(model)}")
            search(*inputs)
    except UserError:
        raise
    except Exception as error:  # whatever parts that do not fit make PyTorch say
        detail = " ".join(str(error).split())[:200]
        raise UserError(
            f"model, objective and decoders do not fit together ({detail}); correct the settings of these"
        ) from None


def _takes(objective: nn.Module, given: dict) -> bool:
    """Whether all is there that the objective asks for."""
    try:
        inspect.signature(objective.forward).bind(**given)
    except TypeError:
        return False
    return True


def _remedy(model: nn.Module) -> str:
    """The objective and the decoders of the model's family, as the first of the recipes with such a model has them."""
    for file in sorted(set(CONFIGS.glob("*.yaml")) - {CONFIGS / "base.yaml"}):
        chosen = {"objective": "ctc", "decoders": "ctc", **_overrides(OmegaConf.load(file))}
        described = CONFIGS / "model" / f"{chosen.get('model')}.yaml"
        if described.is_file():
            target = OmegaConf.load(described).get("_target_", "")
            if target.rpartition(".")[2] == type(model).__name__:
                pair = f"objective={chosen['objective']} decoders={chosen['decoders']}"
                return f"its family's are {pair}, as -cn={file.stem} has them"
    return "give those of its family"


def _overrides(recipe: DictConfig) -> dict[str, str]:
    """What a recipe chooses of the groups: ``override /model: NAME`` of its defaults."""
    chosen = [entry for entry in recipe.get("defaults", ()) if OmegaConf.is_dict(entry)]
    return {key.rpartition("/")[2]: value for entry in chosen for key, value in entry.items()}
