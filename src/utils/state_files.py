"""Saves nested training state (optimizer, scheduler, counters) without pickle: tensors beside JSON.

The tree's containers and numbers go to ``NAME.json``; each tensor is replaced by a reference into
``NAME.safetensors``. Reading it back executes nothing.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from src.utils.files import save_tensors

TENSOR, PAIRS, TUPLE = "__tensor__", "__pairs__", "__tuple__"


def save_state(tree: Any, path: Path) -> None:
    """Writes ``path.json`` and ``path.safetensors`` (path has no suffix)."""
    tensors: dict[str, torch.Tensor] = {}

    def pack(node: Any) -> Any:
        if isinstance(node, torch.Tensor):
            key = str(len(tensors))
            tensors[key] = node.detach().cpu().contiguous().clone()
            return {TENSOR: key}
        if isinstance(node, dict):
            if all(isinstance(key, str) for key in node):
                return {key: pack(value) for key, value in node.items()}
            return {
                PAIRS: [[key, pack(value)] for key, value in node.items()]
            }  # JSON keys would become strings
        if isinstance(node, tuple):
            return {TUPLE: [pack(value) for value in node]}
        if isinstance(node, list):
            return [pack(value) for value in node]
        if node is None or isinstance(node, bool | int | float | str):
            return node
        raise TypeError(f"cannot save a {type(node).__name__} as training state")

    packed = pack(tree)
    save_tensors(tensors, path.with_suffix(".safetensors"))
    path.with_suffix(".json").write_text(json.dumps(packed), encoding="utf-8")


def load_state(path: Path) -> Any:
    """Reads what ``save_state`` wrote; tensors arrive on the CPU."""
    tensors = load_file(path.with_suffix(".safetensors"))

    def unpack(node: Any) -> Any:
        if isinstance(node, dict):
            if TENSOR in node:
                return tensors[node[TENSOR]]
            if PAIRS in node:
                return {key: unpack(value) for key, value in node[PAIRS]}
            if TUPLE in node:
                return tuple(unpack(value) for value in node[TUPLE])
            return {key: unpack(value) for key, value in node.items()}
        if isinstance(node, list):
            return [unpack(value) for value in node]
        return node

    return unpack(json.loads(path.with_suffix(".json").read_text(encoding="utf-8")))
