"""Starting from another checkpoint's weights, possibly with another tokenizer."""

from __future__ import annotations

import inspect
from collections.abc import Collection
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from torch import nn

from src.checkpoint import Checkpoint
from src.model import SpeechModel
from src.model.pretrained import ADAPTER
from src.safe_build import allowed_class
from src.text_encoder import TextEncoder
from src.utils.errors import UserError
from src.utils.hydra_door import CONFIGS

BODIES = "encoder.", "lstm."  # what knows nothing of the tokens
OF_TRAINING = ("dropout", "checkpoint_activations", "dtype", "lora")  # settings that weights know nothing of


def initialise_from(
    model: SpeechModel, checkpoint_dir: str, text_encoder: TextEncoder, model_config: dict[str, Any]
) -> str:
    """Copies the checkpoint's weights into ``model``; returns a line that says which were, which start anew,
    and which of the checkpoint's are left behind.

    Frontend and encoder must be the same (settings of training aside) as ``model_config`` describes them. What
    depends on the vocabulary is copied only when both tokenizers have the same tokens. Raises ``UserError`` for
    a checkpoint with another encoder, naming the differences, and for one whose trained network has no place here.
    """
    checkpoint = Checkpoint.open(checkpoint_dir)
    ours, theirs = _fixed_parts(model_config), _fixed_parts(checkpoint.config["model"])
    for part in {**ours, **theirs}:
        one, other = ours.get(part, {}), theirs.get(part, {})
        different = [f"{key}={other.get(key)}" for key in {**one, **other} if one.get(key) != other.get(key)]
        if different:
            raise UserError(
                f"init_from={checkpoint.path}: its {part} is another one ({', '.join(different)}); use "
                f"{_choice_with(theirs, model_config) or 'the model config that it was trained with'}"
            )
    theirs, ours = checkpoint.weights(), model.state_dict()
    if lost := _lost(model, set(theirs) - set(ours)):
        raise UserError(
            f"init_from={checkpoint.path}: there the {lost} was trained as a whole, here it stays as its source is, "
            f"and what it learnt would be lost; train the {lost} as a whole here, too (model.frozen, no lora)"
        )
    same_tokens = checkpoint.text_encoder().tokens == text_encoder.tokens
    taken = {
        name: theirs[name]
        for name, value in ours.items()
        if name in theirs and theirs[name].shape == value.shape and (same_tokens or name.startswith(BODIES))
    }
    model.load_state_dict({**ours, **taken})
    fresh, homeless = sorted(set(ours) - set(taken)), sorted(set(theirs) - set(ours))
    if not fresh and not homeless:
        return f"started from {checkpoint.path}: all its tensors taken"
    said = [f"{len(taken)} tensors taken"]
    if fresh:
        reason = _reason(fresh, theirs, same_tokens)
        said.append(f"{len(fresh)} start anew because {reason} ({_parts(fresh)})")
    if homeless:  # such as LoRA
        said.append(f"{len(homeless)} of its own have no place here ({_parts(homeless)})")
    return f"started from {checkpoint.path}: {', '.join(said)}"


def _lost(model: nn.Module, homeless: Collection[str]) -> str | None:
    """The part of a source's network whose weights the checkpoint has, though here they would come from the source."""
    for name in sorted(homeless):
        part = name.partition(".")[0]
        if getattr(getattr(model, part, None), "is_elsewhere", False) and ADAPTER not in name:
            return part
    return None


def _reason(fresh: list[str], theirs: Collection[str], same_tokens: bool) -> str:
    without = "it has no layers of these names"
    if set(fresh).isdisjoint(theirs):
        return without
    return f"their shapes differ, or {without}" if same_tokens else "the tokens differ"


def _parts(names: list[str]) -> str:
    """Layers, not each of their tensors."""
    return ", ".join(dict.fromkeys(name.partition(".")[0] for name in names))


def untaught_parts(model: nn.Module) -> list[str]:
    """The parts of a speech LLM that are not trained, though their weights are random: wanted in a control only."""
    frozen = getattr(model, "frozen", ())
    return [name for name in frozen if not getattr(getattr(model, name), "is_elsewhere", False)]


def _fixed_parts(model_config: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What must be alike: a recogniser's frontend and encoder; of a language model all but its vocabulary."""
    if "encoder" in model_config:
        return {part: _completed(model_config[part]) for part in ("frontend", "encoder")}
    return {
        "language model": _completed({k: value for k, value in model_config.items() if k != "vocab_size"})
    }


def _choice_with(parts: dict[str, dict[str, Any]], model_config: dict[str, Any]) -> str | None:
    """What of ``src/configs/model`` has these parts, if anything: for a speech LLM a listener, else a model of the
    family of ``model_config``, or else another one."""
    hears = "projector" in model_config
    wanted, other = _unpinned(parts), None
    for file in sorted((CONFIGS / "model" / ("listener" if hears else "")).glob("[!_]*.yaml")):
        node = OmegaConf.create({"model": _described(file)})
        described = OmegaConf.to_container(node, resolve=True)["model"]
        both = {"frontend", "encoder"}
        if both & described.keys() != both & parts.keys() or _unpinned(_fixed_parts(described)) != wanted:
            continue
        if hears:
            return f"model/listener={file.stem}"
        if described["_target_"] == model_config.get("_target_"):
            return f"model={file.stem}"
        other = other or f"frontend and encoder of model={file.stem}"
    return other


def _described(file: Path) -> DictConfig:
    """A file of ``src/configs``, on top of those beside it that its defaults name."""
    node = OmegaConf.load(file)
    bases = [name for name in node.pop("defaults", ()) if isinstance(name, str) and name != "_self_"]
    return OmegaConf.merge(*(_described(file.with_stem(name)) for name in bases), node)


def _unpinned(parts: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """A run notes the revision that it found; a config of ours names none."""
    return {name: {**settings, "revision": None} for name, settings in parts.items()}


def _completed(node: dict[str, Any]) -> dict[str, Any]:
    """A part's settings with those that its config leaves out, and without those of training."""
    target = allowed_class(node.get("_target_"))
    parameters = inspect.signature(target).parameters.values() if target else ()
    defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
    return {**defaults, **node, **dict.fromkeys(OF_TRAINING)}
