"""From what the user wrote in a config to objects and settings, with mistakes answered in one line."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from src.utils.errors import UserError


def build(node: DictConfig | None, *args: Any, **extra: Any) -> Any:
    """The object that a config node describes; ``args`` and ``extra`` go to its class untouched.

    Raises ``UserError``: the class's own, or the first line of what went wrong.
    """
    if node is None:
        return None
    if not OmegaConf.is_config(node):
        raise UserError(f"{node!r} stands where a part is needed; give a mapping with a _target_")
    try:
        if not args and not extra:
            return instantiate(node, _convert_="all")
        return instantiate(node, _partial_=True, _convert_="all")(*args, **extra)
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, UserError):
            raise cause from None
        target = node.get("_target_", "config")
        raise UserError(f"{target}: {cause or str(error).splitlines()[0]}; correct its config") from None
    except (TypeError, ValueError) as error:
        raise UserError(f"{node.get('_target_')}: {error}; correct its config") from None


@dataclass(frozen=True)
class Limits:
    """Which values of a type a setting may have, and how to say so."""

    words: str
    hold: Callable[[Any], bool] = lambda value: True


Text = Annotated[str, Limits("a text that is not empty (a number in quotes: key='\"5\"')", bool)]
Whole = Annotated[int, Limits("a whole number of at least 0", lambda value: 0 <= value < 2**63)]
Count = Annotated[int, Limits("a whole number of at least 1", lambda value: 1 <= value < 2**63)]
Positive = Annotated[float, Limits("a number above 0", lambda value: 0 < value < math.inf)]
Weight = Annotated[float, Limits("a number of at least 0", lambda value: 0 <= value < math.inf)]
Flag = Annotated[bool, Limits("true or false")]
Share = Annotated[float, Limits("a number from 0 to 1", lambda value: 0 <= value <= 1)]
PartOfOne = Annotated[float, Limits("a number from 0 up to (not including) 1", lambda value: 0 <= value < 1)]
NUMBERS = {int: int, float: (int, float)}


def check(name: str, value: Any, kind: Any) -> None:
    """Raises ``UserError`` unless ``value`` is of ``kind``: one of the types above, or one of them ``| None``.

    >>> check("trainer.patience", None, Count | None)
    >>> check("trainer.patience", 2.5, Count | None)
    Traceback (most recent call last):
    ...
    src.utils.errors.UserError: trainer.patience=2.5 must be a whole number of at least 1, or null
    """
    choices = [kind] if get_origin(kind) is Annotated else list(get_args(kind))
    optional = type(None) in choices
    type_, limits = get_args(next(choice for choice in choices if choice is not type(None)))
    if value is None and optional:
        return
    fits = isinstance(value, NUMBERS.get(type_, type_)) and isinstance(value, bool) == (type_ is bool)
    if not fits or not limits.hold(value):
        shown = "null" if value is None else value
        raise UserError(f"{name}={shown} must be {limits.words}{', or null' if optional else ''}")


def check_counts(**sizes: Any) -> None:
    """``check`` of sizes by their names, each at least 1."""
    for name, value in sizes.items():
        check(name, value, Count)


def check_fields(settings: Any, prefix: str = "") -> None:
    """``check`` of every field of a dataclass by its annotation."""
    for name, kind in get_type_hints(type(settings), include_extras=True).items():
        check(prefix + name, getattr(settings, name), kind)


Settings = TypeVar("Settings")


def build_settings(kind: type[Settings], node: DictConfig, name: str) -> Settings:
    """The dataclass ``kind`` of the config node called ``name``. Raises ``UserError`` for unknown keys."""
    known = [field.name for field in fields(kind)]
    for key in node:
        if key not in known:
            raise UserError(f"{name}.{key} is unknown; choose one of: {', '.join(known)}")
    return kind(**node)
