"""Writing where somebody said: whole or not at all, never over what is no file, and asked about before the work."""

from __future__ import annotations

import pytest
import torch

from src.utils.files import save_tensors


def test_tensors_that_cannot_be_written_are_an_error_of_the_system(tmp_path):
    """Which every door speaks; the library has an error of its own for it."""
    for file in (tmp_path, tmp_path / "nowhere" / "x.safetensors"):
        with pytest.raises(OSError, match=str(file)):
            save_tensors({"x": torch.zeros(1)}, file)
