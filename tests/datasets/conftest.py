"""Tiny recordings for the tests of data sets; the index cache lies in the test's own folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile as sf


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch) -> Path:
    cache = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("LECTERN_CACHE", str(cache))
    return cache


@pytest.fixture
def write_tone():
    """``write_tone(path, seconds=0.2, hertz=440, rate=16000, channels=1, **soundfile options) -> path``."""

    def write(
        path: Path,
        seconds: float = 0.2,
        hertz: float = 440.0,
        rate: int = 16000,
        channels: int = 1,
        **options,
    ) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        tone = 0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)
        sf.write(path, np.stack([tone] * channels, axis=1), rate, **options)
        return path

    return write
