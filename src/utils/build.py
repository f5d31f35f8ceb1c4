"""Hydra's ``instantiate`` for configs that the user wrote, with mistakes answered in one line."""

from __future__ import annotations

from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig

from src.utils.errors import UserError


def build(node: DictConfig | None, *args: Any, **extra: Any) -> Any:
    """The object that a config node describes; ``args`` and ``extra`` go to its class untouched.

    Raises ``UserError``: the class's own, or the first line of what went wrong.
    """
    if node is None:
        return None
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
