"""What is wrong with the Paraformer family today; each test fails."""

from __future__ import annotations

import math

import numpy as np
import torch
from support.families import recognizer

from src.model.slots import CIFPredictor

WRITABLE = ["<blank>", "▁a", "▁b", "c"]


def fixed(alpha: float) -> CIFPredictor:
    predictor = CIFPredictor(4).eval()
    with torch.no_grad():
        predictor.output.weight.zero_()
        predictor.output.bias.fill_(torch.tensor(alpha).logit())
    return predictor


def test_a_recording_of_which_nothing_is_possible_has_pictures_all_the_same():
    from src.inspection import inspect_recording

    broken = recognizer("cif")
    with torch.no_grad():
        broken.model.decoder.output.bias.fill_(math.nan)
    audio = 0.1 * np.random.default_rng(0).standard_normal(16000).astype(np.float32)
    assert inspect_recording(broken, audio, "clip")[0].text == ""
