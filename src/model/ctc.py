"""CTC (Graves et al., 2006): an encoder and one linear layer over tokens, frame by frame."""

from __future__ import annotations

from torch import Tensor, nn

from src.model.speech_model import SpeechModel


class CTCModel(SpeechModel):
    """Encoder + linear head.

    Args:
        frontend: audio -> features.
        encoder: features -> encoded; has ``dim`` and ``subsampling_factor``.
        vocab_size: V, blank included (token 0).
    """

    def __init__(self, frontend: nn.Module, encoder: nn.Module, vocab_size: int) -> None:
        super().__init__(frontend, encoder)
        self.head = nn.Linear(encoder.dim, vocab_size)

    def forward(self, features: Tensor, feature_lengths: Tensor, **batch) -> dict[str, Tensor]:
        """features [B, T, F] -> log_probs [B, T', V] (float32, natural log), encoded, encoded_lengths [B]."""
        encoded, encoded_lengths = self.encode(features, feature_lengths)
        log_probs = self.head(encoded).float().log_softmax(-1)
        return {"log_probs": log_probs, "encoded": encoded, "encoded_lengths": encoded_lengths}

    def search_inputs(self, outputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """log_probs [B, T', V] and their lengths [B]."""
        return outputs["log_probs"], outputs["encoded_lengths"]
