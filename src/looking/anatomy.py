"""How a model is put together: its config, parts and weights and, where it is run, what each makes of a sound."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from src.checkpoint import Checkpoint, try_out
from src.model import SpeechLLM, SpeechModel
from src.trainer.build import build_model
from src.utils.errors import UserError
from src.utils.hydra_door import compose, spelled


@dataclass(frozen=True)
class Subject:
    """A model to be looked at."""

    name: str
    config: Mapping[str, Any]  # the model's
    bare: Callable[[], nn.Module]  # on the meta device: sizes without numbers
    whole: Callable[[], nn.Module]


def subject_of(parser: argparse.ArgumentParser) -> tuple[Subject, argparse.Namespace]:
    """The command line of a script that looks at a checkpoint, or at ``-cn=NAME key=value ...``, and its options.

    Raises ``UserError`` for both, for neither, and for what cannot be read.
    """
    parser.add_argument(
        "-cn", "--config-name", metavar="NAME", help="instead of a checkpoint, as for train.py"
    )
    parser.add_argument("words", nargs="*", metavar="CHECKPOINT | key=value", help="as for train.py")
    options = parser.parse_intermixed_args()
    if options.config_name is not None:
        config = compose(options.config_name, [spelled(word) for word in options.words])
        with torch.device("meta"):
            _, model_config, bare = build_model(config)
        name = " ".join([f"-cn={options.config_name}", *options.words])
        return Subject(name, model_config, lambda: bare, lambda: build_model(config)[2].eval()), options
    if len(options.words) != 1:
        raise UserError("give one checkpoint directory, or -cn=NAME with key=value ...")
    checkpoint = Checkpoint.open(options.words[0])
    name, config = str(checkpoint.path), checkpoint.config["model"]
    return Subject(name, config, checkpoint.bare_model, lambda: checkpoint.model(nn.Module)), options


@dataclass(frozen=True)
class Count:
    """Numbers in the weights of a part."""

    part: str
    total: int
    trainable: int

    @property
    def frozen(self) -> int:
        return self.total - self.trainable


def count_parts(model: nn.Module) -> list[Count]:
    """Of each part of a model, and of the whole; weights that several share are counted once, with the first of them.

    >>> model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 4).requires_grad_(False))
    >>> [(count.part, count.total, count.trainable, count.frozen) for count in count_parts(model)]
    [('0', 9, 9, 0), ('1', 16, 0, 16), ('all', 25, 9, 16)]
    """
    names = [name for name, _ in model.named_children()]
    if list(model.parameters(recurse=False)):
        names.append("")  # weights that lie in no part
    totals, trainable = dict.fromkeys(names, 0), dict.fromkeys(names, 0)
    for name, weight in model.named_parameters():  # each once
        part = name.split(".")[0] if "." in name else ""
        totals[part] += weight.numel()
        trainable[part] += weight.numel() * weight.requires_grad
    counts = [Count(name or "(itself)", totals[name], trainable[name]) for name in names]
    return [*counts, Count("all", sum(totals.values()), sum(trainable.values()))]


def blueprint(node: Any, name: str = "model", depth: int = 0) -> Iterator[str]:
    """A model's config as lines: each part with its class, and its settings below it.

    >>> print(*blueprint({"_target_": "src.model.CTCModel", "encoder": {"dim": 8}, "vocab_size": 29}), sep="\\n")
    model: CTCModel
      encoder
        dim: 8
      vocab_size: 29
    """
    indent = "  " * depth
    if not isinstance(node, Mapping):
        shown = str(node)
        yield f"{indent}{name}: {shown if len(shown) <= 80 else shown[:76] + ' ...'}"
        return
    kind = str(node["_target_"]).rpartition(".")[2] if "_target_" in node else ""
    yield f"{indent}{name}{f': {kind}' if kind else ''}"
    for key, value in node.items():
        if key != "_target_" and value is not None:
            yield from blueprint(value, key, depth + 1)


def interfaces(model: nn.Module) -> Iterator[str]:
    """Where the parts meet: frame rates and widths, read from the parts themselves."""
    if isinstance(model, SpeechModel):
        hop_ms = 1000 * model.frame_s / model.encoder.subsampling_factor
        yield f"features: one every {hop_ms:g} ms"
        yield f"encoder: {model.encoder.subsampling_factor} of them make a frame of {model.encoder.dim}"
    if isinstance(model, SpeechLLM):
        projector, writer = model.projector, model.writer
        stack = getattr(projector, "stack", None)
        joined = f"{stack} frames together, " if stack else ""
        yield f"projector: {joined}{projector.dim_in} in, {projector.dim_out} out"
        yield f"writer: reads vectors of {writer.dim}, knows {writer.vocab_size} tokens"
        yield f"prompt: {len(model.before)} tokens, the speech, {len(model.after)} tokens"
    elif isinstance(model, SpeechModel):
        yield f"search: counts in frames of {1000 * model.frame_s:g} ms"


@dataclass(frozen=True)
class Component:
    """A module of a model's tree; ``times``: so many neighbours are alike."""

    depth: int
    name: str
    kind: str
    weights: Mapping[str, tuple[int, ...]]  # its own
    total: int  # numbers in these and in all below
    times: int = 1
    made: tuple[int, ...] | None = None  # shape of what it made of a second of sound


def component_tree(
    model: nn.Module, depth: int = 3, made: Mapping[nn.Module, tuple[int, ...]] | None = None
) -> Iterator[Component]:
    """The modules of a model down to a depth (0: the model alone); neighbours that are alike are one line.

    >>> model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 3), nn.Linear(3, 3))
    >>> [(part.name, part.times, part.total, part.weights["weight"]) for part in component_tree(model) if part.depth]
    [('0', 1, 9, (3, 2)), ('1-2', 2, 12, (3, 3))]
    """
    yield from _below(type(model).__name__, [model], 0, depth, made or {})


def _below(
    name: str, alike: list[nn.Module], at: int, depth: int, made: Mapping[nn.Module, tuple[int, ...]]
) -> Iterator[Component]:
    module = alike[0]
    weights = {key: tuple(weight.shape) for key, weight in module.named_parameters(recurse=False)}
    total = sum(weight.numel() for weight in module.parameters())
    yield Component(at, name, type(module).__name__, weights, total, len(alike), made.get(alike[-1]))
    if at == depth:
        return
    groups: list[tuple[list[str], list[nn.Module]]] = []
    for key, child in module.named_children():
        if groups and key.isdigit() and _form(child) == _form(groups[-1][1][0]):
            groups[-1][0].append(key)
            groups[-1][1].append(child)
        else:
            groups.append(([key], [child]))
    for keys, children in groups:
        label = keys[0] if len(keys) == 1 else f"{keys[0]}-{keys[-1]}"
        yield from _below(label, children, at + 1, depth, made)


def _form(module: nn.Module) -> list[tuple]:
    """What makes two modules alike: classes and shapes, all the way down."""
    return [
        (key, type(part), [tuple(weight.shape) for weight in part.parameters(recurse=False)])
        for key, part in module.named_modules()
    ]


def shapes_of_a_second(model: SpeechModel) -> dict[nn.Module, tuple[int, ...]]:
    """What each part makes of one second of sound: the shape of the (first) tensor that it returns.

    The model itself, which returns several, has none; nor have parts that only a search calls. A speech LLM's writer
    reads the prompt with the second in it.
    """
    made: dict[nn.Module, tuple[int, ...]] = {}

    def note(module: nn.Module, _: Any, output: Any) -> None:
        if module is model:
            if isinstance(model, SpeechLLM):
                prompt, real = model.prompt(output["projected"], output["projected_lengths"])
                model.writer(prompt, real, last=prompt.size(1))
            return
        parts = output.values() if isinstance(output, Mapping) else output
        parts = parts if isinstance(parts, Iterable) and not isinstance(parts, Tensor) else (parts,)
        first = next((value for value in parts if isinstance(value, Tensor)), None)
        if first is not None:
            made[module] = tuple(first.shape)

    hooks = [module.register_forward_hook(note) for module in model.modules()]
    try:
        with torch.inference_mode():
            try_out(model)
    finally:
        for hook in hooks:
            hook.remove()
    return made
