"""A checkpoint that people share: a directory of weights, config, tokenizer and a card. No pickle anywhere.

model.safetensors   the weights
config.yaml         the model, its searches by name, and how it was trained
tokenizer.*         the text encoder's file
README.md           data, steps and scores
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from src.model import SpeechModel
from src.text_encoder import TextEncoder, load_text_encoder
from src.utils.errors import UserError
from src.utils.safe_build import safe_build

WEIGHTS, CONFIG, CARD = "model.safetensors", "config.yaml", "README.md"


def find_checkpoint(path: str | Path) -> Path:
    """The checkpoint directory that ``path`` means: itself, a pointer file such as ``checkpoints/best``, or a run.

    Raises ``UserError`` when there is none.
    """
    path = Path(path)
    if path.is_file():
        return find_checkpoint(path.parent / path.read_text(encoding="utf-8", errors="replace").strip()[:200])
    if (path / CONFIG).is_file():
        return path
    for pointer in (
        path / "checkpoints" / "best",
        path / "checkpoints" / "last",
        path / "best",
        path / "last",
    ):
        if pointer.is_file():
            return find_checkpoint(pointer)
    reason = "has no config.yaml" if path.is_dir() else "does not exist"
    raise UserError(f"checkpoint {path} {reason}; give a checkpoint directory or the run that made it")


@dataclass(frozen=True)
class Checkpoint:
    """An opened checkpoint directory. Loading it executes nothing that it contains."""

    path: Path
    config: dict[str, Any]

    @classmethod
    def open(cls, path: str | Path) -> Checkpoint:
        """Raises ``UserError`` for a missing or unreadable directory."""
        path = find_checkpoint(path)
        try:
            config = yaml.safe_load((path / CONFIG).read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise UserError(
                f"{path / CONFIG}: not a YAML file ({str(error).splitlines()[0]}); download it again"
            ) from None
        if not isinstance(config, dict) or not {"model", "decoders"} <= set(config):
            raise UserError(f"{path / CONFIG}: has no 'model' and 'decoders'; it is not a Lectern checkpoint")
        return cls(path, config)

    def text_encoder(self) -> TextEncoder:
        return load_text_encoder(self.path)

    def weights(self) -> dict[str, torch.Tensor]:
        """The tensors of ``model.safetensors``, on the CPU."""
        file = self.path / WEIGHTS
        if not file.is_file():
            raise UserError(f"{file}: missing; download the checkpoint again")
        try:
            return load_file(file)
        except (SafetensorError, OSError) as error:
            raise UserError(
                f"{file}: truncated or damaged ({error}); download the checkpoint again"
            ) from None

    def model(self) -> SpeechModel:
        """The model in eval mode, on the CPU."""
        model = safe_build(self.config["model"], str(self.path / CONFIG))
        if not isinstance(model, SpeechModel):
            raise UserError(f"{self.path / CONFIG}: 'model' is a {type(model).__name__}, not a speech model")
        try:
            model.load_state_dict({name: value.float() for name, value in self.weights().items()})
        except RuntimeError as error:
            detail = str(error).splitlines()[-1].strip()
            raise UserError(
                f"{self.path / WEIGHTS}: does not fit the model of config.yaml ({detail})"
            ) from None
        return model.eval()

    def search(self, name: str, overrides: dict[str, Any] | None = None) -> Any:
        """The search that this checkpoint calls ``name``, with some of its settings replaced."""
        decoders = self.config["decoders"]
        if name not in decoders:
            raise UserError(
                f"decoder={name} is unknown to {self.path}; choose one of: {', '.join(sorted(decoders))}"
            )
        if not isinstance(decoders[name], dict):
            raise UserError(
                f"{self.path / CONFIG}: decoder {name} is no mapping; download the checkpoint again"
            )
        return safe_build({**decoders[name], **(overrides or {})}, str(self.path / CONFIG))


def write_checkpoint(
    directory: Path, model: SpeechModel, config: dict[str, Any], text_encoder: TextEncoder, card: str
) -> None:
    """Writes the four files into an existing directory."""
    weights = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    save_file(weights, directory / WEIGHTS)
    (directory / CONFIG).write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    text_encoder.save(directory)
    (directory / CARD).write_text(card, encoding="utf-8")


class atomic_directory:
    """``with atomic_directory(path) as unfinished``: the directory appears under its name only when complete."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.unfinished = self.path.with_name(f".{self.path.name}.unfinished")

    def __enter__(self) -> Path:
        shutil.rmtree(self.unfinished, ignore_errors=True)
        self.unfinished.mkdir(parents=True)
        return self.unfinished

    def __exit__(self, kind: type | None, *_: object) -> None:
        if kind is not None:
            shutil.rmtree(self.unfinished, ignore_errors=True)
            return
        replaced = self.path.with_name(f".{self.path.name}.replaced")
        shutil.rmtree(replaced, ignore_errors=True)
        if self.path.exists():
            os.replace(self.path, replaced)
        os.replace(self.unfinished, self.path)
        shutil.rmtree(replaced, ignore_errors=True)
