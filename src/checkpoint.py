"""A checkpoint that people share: a directory of weights, config, tokenizer and a card. No pickle anywhere.

model.safetensors   the weights
config.yaml         the model, its searches by name, and how it was trained
tokenizer.*         the text encoder's file
README.md           data, steps and scores
"""

from __future__ import annotations

import hashlib
import inspect
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

from src.decoding.settings import require_blank_of_models
from src.model import SpeechModel
from src.safe_build import OWN_ROOMS, ROOMS, allowed_class, safe_build
from src.text_encoder import TextEncoder, load_text_encoder
from src.utils.audio import SAMPLE_RATE
from src.utils.errors import UserError
from src.utils.files import save_tensors

WEIGHTS, CONFIG, CARD = "model.safetensors", "config.yaml", "README.md"
LANGUAGE_MODEL = "src.lm.neural.LSTMLanguageModel"
OWN_DECODERS = Path(__file__).parent / "configs" / "extra_decoders"  # for any checkpoint, by name
OWN_SEARCH = "search_of_checkpoint"  # what a decoder YAML says for one of the checkpoint's own
MOST_OF_ANYTHING = 1 << 20  # of any size in a model's config


def find_checkpoint(path: str | Path) -> Path:
    """The checkpoint directory that ``path`` means: itself, a pointer file such as ``checkpoints/best``, or a run.

    Raises ``UserError`` when there is none.
    """
    path = Path(path)
    if os.path.isfile(path / CONFIG):
        return path
    for pointer in (
        path,
        *(path / name for name in ("checkpoints/best", "checkpoints/last", "best", "last")),
    ):
        if os.path.isfile(pointer):
            return _pointed(pointer)
    reason = "has no config.yaml" if os.path.isdir(path) else "does not exist"
    raise UserError(f"checkpoint {path} {reason}; give a checkpoint directory or the run that made it")


def _pointed(pointer: Path) -> Path:
    """The directory beside a pointer file that its one line names."""
    try:
        with pointer.open("rb") as file:
            name = file.read(200).decode(errors="replace").strip()
    except OSError as error:
        raise UserError(
            f"checkpoint {pointer}: cannot be read ({error.strerror}); give a directory"
        ) from None
    if not name.isprintable() or not name or not os.path.isfile(pointer.parent / name / CONFIG):
        named = f" ({name[:40]!r})" if name.isprintable() else ""
        raise UserError(
            f"checkpoint {pointer}: names no checkpoint{named}; give the checkpoint's directory itself"
        )
    return pointer.parent / name


class _PlainLoader(yaml.SafeLoader):
    """YAML without aliases: with them a few bytes can stand for a tree that has no end."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases such as *name are not allowed")
        return super().compose_node(parent, index)


class _OwnLoader(_PlainLoader):
    """What people write by hand: 1e-3 and 1.0e9 are numbers, as on the command line; YAML 1.1 has them as texts."""


_OwnLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def _missing_mappings(config: Any) -> str | None:
    """What a config lacks of the mappings that every reader of a checkpoint takes for granted, in words."""

    def holds_mappings(node: Any, keys: Iterable[Any]) -> bool:
        return isinstance(node, dict) and all(isinstance(node.get(key), dict) for key in keys)

    if not holds_mappings(config, ("model", "decoders")):
        return "has no 'model' and 'decoders'"
    model, decoders = config["model"], config["decoders"]
    hears = model.get("_target_") != LANGUAGE_MODEL
    if hears and not holds_mappings(model, ("frontend", "encoder")):
        return f"its model ({str(model.get('_target_'))[:100]}) has no frontend and encoder"
    if not all(isinstance(name, str) for name in decoders) or not holds_mappings(decoders, decoders):
        return "its 'decoders' are not mappings by name"
    return None


@dataclass(frozen=True)
class Checkpoint:
    """An opened checkpoint directory. Loading it executes nothing that it contains."""

    path: Path
    config: dict[str, Any]

    @classmethod
    def open(cls, path: str | Path) -> Checkpoint:
        """Raises ``UserError`` for a missing directory or a config that is not a checkpoint's."""
        path = find_checkpoint(path)
        try:
            config = yaml.load((path / CONFIG).read_text(encoding="utf-8"), _PlainLoader)
        except Exception as error:  # whatever a stranger's text can make a parser throw
            reason = f"not a YAML file ({str(error)[:200]})"
            raise UserError(f"{path / CONFIG}: {reason}; download it again") from None
        if lack := _missing_mappings(config):
            raise UserError(f"{path / CONFIG}: {lack}; it is not a Lectern checkpoint")
        return cls(path, config)

    def fingerprint(self) -> str:
        """A hash of everything in the directory but its card."""
        digest = hashlib.sha256()
        for part in sorted(self.path.iterdir()):
            if part.is_file() and part.name != CARD:
                with part.open("rb") as file:
                    while chunk := file.read(1 << 20):
                        digest.update(chunk)
        return digest.hexdigest()

    def text_encoder(self) -> TextEncoder:
        """The tokenizer, which has a text for every token of the model."""
        text_encoder = load_text_encoder(self.path)
        expected = self.config["model"].get("vocab_size")
        if text_encoder.vocab_size != expected:
            raise UserError(
                f"{self.path / text_encoder.file_name}: has {text_encoder.vocab_size} tokens, but the model's "
                f"vocab_size is {expected}; download the checkpoint again"
            )
        for name, value in text_encoder.for_model().items():
            if self.config["model"].get(name) != value:
                raise UserError(
                    f"{self.path / text_encoder.file_name}: its {name} is not the one that the model was trained with; "
                    "download the checkpoint again"
                )
        return text_encoder

    def weights(self) -> dict[str, torch.Tensor]:
        """The tensors of ``model.safetensors``: float32, on the CPU, every number finite."""
        file = self.path / WEIGHTS
        if not file.is_file():
            raise UserError(f"{file}: missing; download the checkpoint again")
        try:
            weights = {name: value.float() for name, value in load_file(file).items()}
        except Exception as error:  # whatever a stranger's bytes can make a parser throw
            raise UserError(
                f"{file}: truncated or damaged ({error}); download the checkpoint again"
            ) from None
        for name, value in weights.items():
            if not value.isfinite().all():
                raise UserError(f"{file}: {name} holds NaN or infinite numbers; take another checkpoint")
        return weights

    def model(self, kind: type[nn.Module] = SpeechModel) -> Any:
        """The model, of this kind, in eval mode, on the CPU; a speech model was tried out on a second of sound."""
        weights = self.weights()
        model = self._built(len(weights))
        if not isinstance(model, kind):
            raise UserError(
                f"checkpoint {self.path}: holds a {type(model).__name__}, and a {kind.__name__} is needed; give another"
            )
        try:
            model.load_state_dict(weights)
        except RuntimeError as error:
            detail = str(error).splitlines()[-1].strip()
            raise UserError(
                f"{self.path / WEIGHTS}: does not fit the model of config.yaml ({detail})"
            ) from None
        model.eval()
        if not isinstance(model, SpeechModel):
            return model
        try:
            try_out(model)
        except Exception as error:  # parts that were built, but do not fit together
            detail = " ".join(str(error).split())[:200]
            raise UserError(
                f"{self.path / CONFIG}: 'model' fails on a second of sound ({detail}); do not use this file"
            ) from None
        return model

    def bare_model(self) -> nn.Module:
        """The model on the meta device: its parts and their sizes, without a number of its weights."""
        try:
            with safe_open(self.path / WEIGHTS, "pt") as file:
                tensors = len(file.keys())
        except Exception as error:  # whatever a stranger's bytes can make a parser throw
            raise UserError(
                f"{self.path / WEIGHTS}: missing, truncated or damaged ({error}); download the checkpoint again"
            ) from None
        with torch.device("meta"):
            return self._built(tensors)

    def _built(self, tensors: int) -> nn.Module:
        """The model of ``config.yaml``, which is not larger than so many tensors can be, before it has its weights."""
        _check_sizes(self.config["model"], tensors, self.path / CONFIG)
        given = {"vocab_size": self.config["model"].get("vocab_size")}
        return safe_build(self.config["model"], str(self.path / CONFIG), given=given)

    def search(self, name: str, overrides: dict[str, Any] | None = None) -> Any:
        """A search for this checkpoint's model.

        Args:
            name: one of its ``decoders``, a decoder YAML of one's own, or one of ``src/configs/extra_decoders``.
            overrides: settings to replace.

        Raises ``UserError`` for a search or a setting that does not exist or does not fit.
        """
        if self.config["model"].get("_target_") == LANGUAGE_MODEL:
            raise UserError(
                f"checkpoint {self.path}: is a language model, which hears nothing; give a recogniser's"
            )
        settings, source, rooms = self._decoder(name)
        for key in overrides or {}:
            target = allowed_class(settings.get("_target_"), rooms)
            known = [*inspect.signature(target).parameters] if target else [key]
            if key not in known:
                raise UserError(f"search.{key} is unknown to decoder={name}; it has: {', '.join(known)}")
        given = ", ".join(f"search.{key}={value}" for key, value in (overrides or {}).items())
        at_fault = f"decoder={name} with {given}" if given else str(source)
        search = safe_build({**settings, **(overrides or {})}, at_fault, rooms, self._given())
        # Parts of a model can be called too.
        if not callable(search) or not type(search).__module__.startswith("src.decoding."):
            kind = type(search).__name__
            raise UserError(f"{source}: decoder {name} is a {kind}, not a search; correct it")
        require_blank_of_models(search)
        return search

    def search_settings(self, name: str) -> dict[str, Any]:
        """What ``search(name)`` is made of."""
        return self._decoder(name)[0]

    def _decoder(self, name: str) -> tuple[dict[str, Any], Path, tuple[str, ...]]:
        """The settings of a search, the file that has them, and whose classes that may name."""
        decoders = self.config["decoders"]
        if name in decoders:
            return decoders[name], self.path / CONFIG, ROOMS
        file = Path(name) if name.endswith((".yaml", ".yml")) else OWN_DECODERS / f"{name}.yaml"
        try:
            settings = yaml.load(file.read_text(encoding="utf-8"), _OwnLoader)
        except (FileNotFoundError, NotADirectoryError):
            if file == Path(name):
                raise UserError(
                    f"decoder={name}: there is no such file; give a decoder YAML or a name"
                ) from None
            known = ", ".join(self._names())
            raise UserError(
                f"decoder={name} is unknown to {self.path}; choose one of: {known}, or give a YAML file"
            ) from None
        except (OSError, ValueError, yaml.YAMLError) as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"{file}: not a YAML file ({reason}); correct it") from None
        if not isinstance(settings, dict):
            raise UserError(f"{file}: has no _target_; give the settings of one search")
        settings = self._with_own_searches(settings, file)
        if refused := _refused(settings):
            known = ", ".join(self._names())
            raise UserError(
                f"decoder={name}: {' takes no '.join(refused)}; leave it out, or choose one of: {known}"
            )
        return settings, file, OWN_ROOMS

    def _names(self) -> list[str]:
        """Its own searches, and those of ``src/configs/extra_decoders`` that these can be made into."""
        is_ctc = self.config["model"].get("_target_") == "src.model.CTCModel"
        names = {*self.config["decoders"]}
        for file in OWN_DECODERS.glob("*.yaml"):
            text = file.read_text(encoding="utf-8")
            if not is_ctc and OWN_SEARCH not in text:  # a search of CTC's own
                continue
            try:
                settings = self._with_own_searches(yaml.load(text, _OwnLoader), file)
            except UserError:  # it has no search of that name
                continue
            if not _refused(settings):
                names.add(file.stem)
        return sorted(names)

    def _with_own_searches(self, node: Any, source: Path) -> Any:
        """A decoder YAML in which ``search_of_checkpoint: NAME`` stands for the settings of that search, which the rest
        of its mapping adds to: so one file serves all families."""
        if isinstance(node, list):
            return [self._with_own_searches(value, source) for value in node]
        if not isinstance(node, dict):
            return node
        node = {key: self._with_own_searches(value, source) for key, value in node.items()}
        name = node.pop(OWN_SEARCH, None)
        if name is None:
            return node
        decoders = self.config["decoders"]
        if not isinstance(name, str) or name not in decoders:
            known = ", ".join(sorted(decoders))
            raise UserError(f"{source}: {OWN_SEARCH}={name!r} is none of {self.path}, which has: {known}")
        # A stranger's settings, in a file of one's own: they may still name only what a checkpoint may.
        safe_build(decoders[name], str(self.path / CONFIG), ROOMS, self._given())
        return {**decoders[name], **node}

    def _given(self) -> dict[str, Any]:
        """What a search's parts may ask of the tokenizer; that it fits the model is the model's concern."""
        tokens = load_text_encoder(self.path).tokens
        return {"tokens": tokens, "vocab_size": len(tokens)}


def _refused(node: Any) -> tuple[str, str] | None:
    """Of a tree of settings the first class that is given what it does not take, and what that is."""
    if not isinstance(node, dict | list):
        return None
    target = allowed_class(node.get("_target_"), OWN_ROOMS) if isinstance(node, dict) else None
    for key in node if target else ():
        if key != "_target_" and key not in inspect.signature(target).parameters:
            return target.__name__, str(key)
    below = node.values() if isinstance(node, dict) else node
    return next(filter(None, map(_refused, below)), None)


def _check_sizes(node: Any, tensors: int, source: Path) -> None:
    """Raises ``UserError`` for a model that is absurdly large, or has more layers than its file has tensors."""
    for key, value in node.items() if isinstance(node, dict) else ():
        _check_sizes(value, tensors, source)
        most = tensors if str(key).endswith("layers") else MOST_OF_ANYTHING
        if isinstance(value, int) and value > most:
            raise UserError(f"{source}: {key}={value} does not fit its {WEIGHTS}; do not use this file")


@torch.inference_mode()
def try_out(model: SpeechModel) -> None:
    """The way from audio to what a search reads, on one second of a ramp; raises whatever goes wrong."""
    was_training, device = model.training, model.device
    model.eval()
    try:
        audio = torch.linspace(-1, 1, SAMPLE_RATE, device=device)[None]
        features, lengths = model.frontend(audio, torch.tensor([SAMPLE_RATE], device=device))
        for values in model.search_inputs(model(features, lengths)):
            if isinstance(values, torch.Tensor) and values.isnan().any():
                raise ValueError("its output is NaN")
        if not model.frame_s > 0:
            raise ValueError(f"a frame of {model.frame_s} s")
    finally:
        model.train(was_training)


def write_checkpoint(
    directory: Path, model: nn.Module, config: dict[str, Any], text_encoder: TextEncoder, card: str
) -> None:
    """Writes the four files into an existing directory."""
    weights = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    save_tensors(weights, directory / WEIGHTS)
    (directory / CONFIG).write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    text_encoder.save(directory)
    (directory / CARD).write_text(card, encoding="utf-8")
