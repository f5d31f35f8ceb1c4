"""Builds objects from a configuration that came from somebody else, so nothing unexpected may be called.

Hydra's ``instantiate`` calls any importable function that a config names. A checkpoint's config is data from
the internet: here a ``_target_`` must be one of the classes that the project's own rooms export. A file of the
user's own may also name language models, which open the files that they are told to.
"""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Mapping
from typing import Any

from src.utils.errors import UserError

# Not src.text_encoder, and src.lm for one's own files only: their classes open the file that they are told to.
ROOMS = (
    "src.model",
    "src.model.encoders",
    "src.model.listeners",
    "src.model.projectors",
    "src.model.slots",
    "src.model.spellers",
    "src.model.writers",
    "src.transforms",
    "src.decoding",
    "src.lm.neural",
)
OWN_ROOMS = (*ROOMS, "src.lm", "src.decoding.pyctcdecode_adapter")
MAX_DEPTH = 20  # far below Python's recursion limit, far above any model


@functools.cache
def allowed_targets(rooms: tuple[str, ...] = ROOMS) -> dict[str, type]:
    """Every class in a room's ``__all__``, by its full name; of the transforms the frontend alone."""
    allowed = {}
    for room in rooms:
        module = importlib.import_module(room)
        for name in module.__all__ if room != "src.transforms" else ["LogMel"]:
            if inspect.isclass(getattr(module, name)):
                allowed[f"{room}.{name}"] = getattr(module, name)
    return allowed


def allowed_class(target: Any, rooms: tuple[str, ...] = ROOMS) -> type | None:
    """The class that a ``_target_`` names, if it may; None for anything else."""
    return allowed_targets(rooms).get(target) if isinstance(target, str) else None


def safe_build(
    node: Any,
    source: str,
    rooms: tuple[str, ...] = ROOMS,
    given: Mapping[str, Any] | None = None,
    depth: int = 0,
) -> Any:
    """Builds a plain tree of dicts and lists.

    Args:
        node: the tree.
        source: where it comes from, for messages.
        rooms: whose classes it may name.
        given: what no file can say, such as the tokenizer's ``tokens``, for every class that has such an argument.
        depth: how far the node lies below the tree's root.

    Raises ``UserError`` naming ``source`` for a ``_target_`` that is not allowed, any other key that begins
    with an underscore (Hydra's ``_partial_``, ``_args_`` ...), a tree deeper than ``MAX_DEPTH``, or arguments
    that the class refuses.

    >>> safe_build({"_target_": "src.decoding.CTCBeamSearch", "beam_size": 4}, "config.yaml").beam_size
    4
    >>> safe_build({"_target_": "os.system", "command": "true"}, "config.yaml")
    Traceback (most recent call last):
    ...
    src.utils.errors.UserError: config.yaml: _target_ 'os.system' is not a class that src.model, ...
    """
    if depth > MAX_DEPTH:
        raise UserError(f"{source}: is nested more than {MAX_DEPTH} deep; do not use this file")
    if isinstance(node, list):
        return [safe_build(value, source, rooms, given, depth + 1) for value in node]
    if not isinstance(node, dict):
        return node
    for key in node:
        if str(key).startswith("_") and key != "_target_":
            raise UserError(f"{source}: key {key!r} is not allowed; do not use this file")
    arguments = {
        key: safe_build(value, source, rooms, given, depth + 1)
        for key, value in node.items()
        if key != "_target_"
    }
    if "_target_" not in node:
        return arguments
    target = node["_target_"]
    built_class = allowed_class(target, rooms)
    if built_class is None:
        raise UserError(
            f"{source}: _target_ {target!r} is not a class that {', '.join(rooms)} export; do not use it"
        )
    wanted = inspect.signature(built_class).parameters
    arguments = {key: value for key, value in (given or {}).items() if key in wanted} | arguments
    try:
        return built_class(**arguments)
    except Exception as error:  # whatever a stranger's numbers can make a constructor throw
        raise UserError(f"{source}: {target} cannot be built: {error}") from None
