"""What becomes of one recording on its way through a model: samples, features, embeddings, tokens, text."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from src.recognizer import Recognizer, Transcript
from src.utils.audio import SAMPLE_RATE
from src.utils.errors import UserError

NAMES = {"encoded": "embeddings", "projected": "projected embeddings", "log_probs": "log probabilities"}


@dataclass(frozen=True)
class Stage:
    """Values [rows] or [rows, width] of one recording, how many samples of it they stand for, and what a column is."""

    name: str
    values: np.ndarray
    samples: int
    column: str = "dimension"

    @property
    def compression(self) -> float:
        """Samples of the recording for each row."""
        return self.samples / max(1, len(self.values))

    @property
    def ms(self) -> float:
        """Milliseconds of the recording for each row."""
        return 1000 * self.compression / SAMPLE_RATE

    def statistics(self) -> tuple[float, float, float, float]:
        """Mean, standard deviation, smallest and largest value; 0 where there are none."""
        if not self.values.size:
            return 0.0, 0.0, 0.0, 0.0
        values = self.values.astype(np.float64)
        return values.mean(), values.std(), values.min(), values.max()


@torch.inference_mode()
def stages_of(recognizer: Recognizer, audio: np.ndarray, name: str) -> tuple[list[Stage], Transcript]:
    """Audio [N] at 16 kHz and its name -> the stages in their order, and what was understood.

    Waveform; the waveform with mean 0 and variance 1, as HuBERT and wav2vec 2.0 listen to it; the frontend's features
    [T, F]; embeddings [T', D] of the encoder; and what else the family makes of them for its searches, such as
    projected embeddings [P, H] or log probabilities [T', V]. Raises ``UserError`` for a recording without a frame.
    """
    model, N = recognizer.model, len(audio)
    samples, lengths = torch.from_numpy(audio)[None].to(model.device), torch.tensor([N], device=model.device)
    features, feature_lengths = model.frontend(samples, lengths)
    outputs = model(features, feature_lengths)
    if not int(outputs["encoded_lengths"]):
        raise UserError(f"{name}: {N} samples are too short for a frame; give a longer recording")
    # As Wav2Vec2FeatureExtractor has it.
    normalised = (audio - audio.mean()) / np.sqrt(audio.var() + 1e-7)
    heard = _rows(features, feature_lengths)
    stages = [
        Stage("waveform", audio, N, "amplitude"),
        Stage("normalised waveform", normalised, N, "amplitude"),
        Stage("features", heard, N, "mel bin" if heard.shape[1] > 1 else "amplitude"),
    ]
    for key in sorted(outputs, key="encoded".__ne__):  # embeddings before what is made of them
        values = outputs[key]
        if values.ndim == 3 and values.is_floating_point():
            one = f"{key.removesuffix('s')}_lengths"  # log_probs and log_prob_lengths
            of_it = outputs.get(one, outputs["encoded_lengths"])
            column = "token" if key == "log_probs" else "dimension"
            stages.append(Stage(NAMES.get(key, key.replace("_", " ")), _rows(values, of_it), N, column))
    return stages, recognizer.decode(outputs, [name])[0]


def _rows(values: Tensor, lengths: Tensor) -> np.ndarray:
    """values [1, T, X], lengths [1] -> [T, X] without padding."""
    return values[0, : int(lengths)].float().cpu().numpy()
