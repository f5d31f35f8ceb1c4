"""What every family is: a frontend and an encoder, plus what its objective and its searches need."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from src.utils.audio import SAMPLE_RATE
from src.utils.errors import UserError


def require_parts(**parts: nn.Module) -> None:
    """Raises ``UserError`` for what stands where a part is needed, by its name."""
    for name, part in parts.items():
        if not isinstance(part, nn.Module):
            shown = "null" if part is None else repr(part)
            raise UserError(f"{name}={shown} must be a part of the model: a mapping with a _target_")


class SpeechModel(nn.Module, ABC):
    """Audio in, something to search in out.

    The frontend belongs to the model and is saved with it, so weights never meet other features.
    """

    tells_times = True  # whether its searches know when tokens were said

    def __init__(self, frontend: nn.Module, encoder: nn.Module) -> None:
        super().__init__()
        require_parts(frontend=frontend, encoder=encoder)
        self.frontend = frontend
        self.encoder = encoder

    @property
    def frame_s(self) -> float:
        """Seconds per frame that ``token_times`` count in: an encoder frame, unless the family says otherwise."""
        return self.frontend.hop / SAMPLE_RATE * self.encoder.subsampling_factor

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def encode(self, features: Tensor, feature_lengths: Tensor) -> tuple[Tensor, Tensor]:
        """features [B, T, F], feature_lengths [B] -> encoded [B, T', D], encoded_lengths [B]; T may be 0."""
        if features.size(1) == 0:
            features = F.pad(features, (0, 0, 0, 1))
        return self.encoder(features, feature_lengths)

    def attention(self, features: Tensor, feature_lengths: Tensor, tokens: Tensor) -> Tensor | None:
        """Where it looks for each token of texts [B, U] and for their ends, [B, U + 1, T'], in families that do so."""
        return None

    @abstractmethod
    def forward(self, features: Tensor, feature_lengths: Tensor, **batch) -> dict[str, Tensor]:
        """What the family's objective and searches read, by the names of ``docs/contracts.md``."""

    @abstractmethod
    def search_inputs(self, outputs: dict[str, Tensor]) -> tuple:
        """The positional arguments of the family's searches, from what ``forward`` returned."""


class SpeechModelWithCTC(SpeechModel):
    """A family that may have a CTC layer on its encoder, beside what makes it that family: ``ctc_head``, or None."""

    ctc_head: nn.Linear | None

    def ctc_log_probs(self, encoded: Tensor) -> Tensor | None:
        """encoded [B, T', D] -> log_probs [B, T', V] (float32) of the CTC layer, where there is one."""
        return None if self.ctc_head is None else self.ctc_head(encoded).float().log_softmax(-1)

    def ctc_outputs(self, encoded: Tensor, encoded_lengths: Tensor) -> dict[str, Tensor]:
        """What the objective reads of it: log_probs and log_prob_lengths [B]; nothing where there is no CTC layer."""
        log_probs = self.ctc_log_probs(encoded)
        return {} if log_probs is None else {"log_probs": log_probs, "log_prob_lengths": encoded_lengths}
