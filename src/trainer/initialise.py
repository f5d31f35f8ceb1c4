"""Starting from another checkpoint's weights, possibly with another tokenizer."""

from __future__ import annotations

import inspect
from typing import Any

from omegaconf import OmegaConf

from src.checkpoint import Checkpoint
from src.model import SpeechModel
from src.safe_build import allowed_class
from src.text_encoder import TextEncoder
from src.utils.errors import UserError
from src.utils.hydra_door import CONFIGS

BODIES = "encoder.", "lstm."  # what knows nothing of the tokens
OF_TRAINING = ("dropout", "checkpoint_activations", "dtype", "lora")  # settings that weights know nothing of


def initialise_from(
    model: SpeechModel, checkpoint_dir: str, text_encoder: TextEncoder, model_config: dict[str, Any]
) -> str:
    """Copies the checkpoint's weights into ``model``; returns a line that says which were, and which start anew.

    Frontend and encoder must be the same (settings of training aside) as ``model_config`` describes them. What
    depends on the vocabulary is copied only when both tokenizers have the same tokens. Raises ``UserError`` for
    a checkpoint with another encoder, naming the differences.
    """
    checkpoint = Checkpoint.open(checkpoint_dir)
    ours, theirs = _fixed_parts(model_config), _fixed_parts(checkpoint.config["model"])
    for part in {**ours, **theirs}:
        one, other = ours.get(part, {}), theirs.get(part, {})
        different = [f"{key}={other.get(key)}" for key in {**one, **other} if one.get(key) != other.get(key)]
        if different:
            raise UserError(
                f"init_from={checkpoint.path}: its {part} is another one ({', '.join(different)}); use "
                f"{_name_of(theirs) or 'the model config that it was trained with'}"
            )
    theirs, ours = checkpoint.weights(), model.state_dict()
    same_tokens = checkpoint.text_encoder().tokens == text_encoder.tokens
    taken = {
        name: theirs[name]
        for name, value in ours.items()
        if name in theirs and theirs[name].shape == value.shape and (same_tokens or name.startswith(BODIES))
    }
    model.load_state_dict({**ours, **taken})
    fresh = sorted(set(ours) - set(taken))
    if not fresh:
        return f"started from {checkpoint.path}: all its tensors taken"
    parts = dict.fromkeys(name.partition(".")[0] for name in fresh)  # layers, not each of their tensors
    reason = "the tokens differ"
    if same_tokens:
        reason = "it has no layers of these names"
        if not set(fresh).isdisjoint(theirs):
            reason = f"their shapes differ, or {reason}"
    new = f"{len(taken)} tensors taken, {len(fresh)} start anew because {reason} ({', '.join(parts)})"
    if "ctc_head" in parts and checkpoint.config["model"].get("_target_") == "src.model.CTCModel":
        new += "; a CTC model's own output layer is not taken for the CTC layer of another family"
    return f"started from {checkpoint.path}: {new}"


def _fixed_parts(model_config: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What must be alike: a recogniser's frontend and encoder; of a language model all but its vocabulary."""
    if "encoder" in model_config:
        return {part: _completed(model_config[part]) for part in ("frontend", "encoder")}
    return {
        "language model": _completed({k: value for k, value in model_config.items() if k != "vocab_size"})
    }


def _name_of(parts: dict[str, dict[str, Any]]) -> str | None:
    """``model=NAME`` of the file in ``src/configs/model`` that describes these parts, if there is one."""
    for file in sorted((CONFIGS / "model").glob("*.yaml")):
        described = OmegaConf.to_container(OmegaConf.create({"model": OmegaConf.load(file)}), resolve=True)
        if "defaults" not in described["model"] and _fixed_parts(described["model"]) == parts:
            return f"model={file.stem}"
    return None


def _completed(node: dict[str, Any]) -> dict[str, Any]:
    """A part's settings with those that its config leaves out, and without those of training."""
    target = allowed_class(node.get("_target_"))
    parameters = inspect.signature(target).parameters.values() if target else ()
    defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
    return {**defaults, **node, **dict.fromkeys(OF_TRAINING)}
