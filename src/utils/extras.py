"""Packages that only some families need."""

from __future__ import annotations

import importlib
from types import ModuleType

from src.utils.errors import UserError


def speech_llm_package(name: str) -> ModuleType:
    """``transformers``, ``peft`` or ``tokenizers``, or a module of these; ``UserError`` where it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UserError(
            f"speech LLMs need the package {name.partition('.')[0]} ({error}); run: pip install -r requirements-llm.txt"
        ) from None
