"""What is wrong with the Paraformer family today; each test fails."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from support.families import recognizer

from src.decoding import ParaformerSamplingSearch
from src.decoding.paraformer_search import nucleus_of
from src.loss import WordErrorObjective
from src.model.slots import CIFPredictor
from src.utils.errors import UserError

WRITABLE = ["<blank>", "▁a", "▁b", "c"]


def fixed(alpha: float) -> CIFPredictor:
    predictor = CIFPredictor(4).eval()
    with torch.no_grad():
        predictor.output.weight.zero_()
        predictor.output.bias.fill_(torch.tensor(alpha).logit())
    return predictor


def test_the_coldest_temperature_is_the_best_token():
    log_probs = torch.tensor([[-3.0, -0.2, -4.0]], dtype=torch.float64)
    assert nucleus_of(log_probs, 1e-310, 1.0).tolist() == [[0, 1, 0]]


def test_a_seed_that_no_generator_takes_is_refused():
    with pytest.raises(UserError, match="seed="):
        ParaformerSamplingSearch(seed=2**70)


def test_samples_are_a_whole_number():
    with pytest.raises(UserError, match="samples=2.5"):
        WordErrorObjective(WRITABLE, samples=2.5)


def test_a_recording_of_which_nothing_is_possible_has_pictures_all_the_same():
    from src.inspection import inspect_recording

    broken = recognizer("cif")
    with torch.no_grad():
        broken.model.decoder.output.bias.fill_(math.nan)
    audio = 0.1 * np.random.default_rng(0).standard_normal(16000).astype(np.float32)
    assert inspect_recording(broken, audio, "clip")[0].text == ""
