"""Every transforms YAML composes, builds and runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from src.transforms import Compose, LogMel, SpecAugment
from src.utils.seeding import addressed_rng

CONFIGS = Path(__file__).parents[2] / "src" / "configs"
NAMES = sorted(path.stem for path in (CONFIGS / "transforms").glob("*.yaml"))


def build(name: str, *overrides: str):
    with initialize_config_dir(str(CONFIGS), version_base=None):
        return instantiate(compose(f"transforms/{name}", overrides=list(overrides)).transforms)


def test_the_three_strengths_are_there():
    assert {"none", "light", "strong"} <= set(NAMES)
    assert build("none").waveform is None and build("none").spec_augment is None


@pytest.mark.parametrize("name", NAMES)
def test_runs(name):
    transforms = build(name)
    audio = addressed_rng("clip").uniform(-0.3, 0.3, 16000).astype(np.float32)
    if transforms.waveform is not None:
        assert isinstance(transforms.waveform, Compose)
        for seed in range(5):
            audio = transforms.waveform(audio, addressed_rng(seed))
            assert audio.dtype == np.float32 and np.isfinite(audio).all() and np.abs(audio).max() <= 1
    features, lengths = LogMel()(torch.from_numpy(audio)[None], torch.tensor([audio.size]))
    if transforms.spec_augment is not None:
        assert isinstance(transforms.spec_augment, SpecAugment)
        draws = torch.rand(1, transforms.spec_augment.draws_per_utterance)
        features = transforms.spec_augment(features, lengths, draws)
    assert features.isfinite().all()


def test_an_augmentation_is_switched_off_by_null():
    transforms = build("strong", "transforms.waveform.augmentations.reverb=null")
    assert "reverb" not in transforms.waveform.augmentations and "noise" in transforms.waveform.augmentations
