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
        upsampling: outputs per encoder frame, k; the head then gives k V scores a frame. CTC needs a frame for
            every token and one more between equal neighbours: at 40 ms a frame a fast speaker's "three" has
            too few, while attention and convolutions over twice the frames would cost twice the time.

    Example:
        >>> import torch
        >>> from src.model.encoders import MLPEncoder
        >>> from src.transforms import LogMel
        >>> model = CTCModel(LogMel(80), MLPEncoder(80, dim=32, stack=4), vocab_size=29, upsampling=2)
        >>> outputs = model(torch.randn(2, 100, 80), torch.tensor([100, 50]))
        >>> outputs["log_probs"].shape, outputs["log_prob_lengths"].tolist(), model.frame_s
        (torch.Size([2, 50, 29]), [50, 26], 0.02)
    """

    def __init__(self, frontend: nn.Module, encoder: nn.Module, vocab_size: int, upsampling: int = 1) -> None:
        super().__init__(frontend, encoder)
        if upsampling < 1:
            raise ValueError(f"upsampling={upsampling}; give at least 1")
        self.upsampling = upsampling
        self.head = nn.Linear(encoder.dim, upsampling * vocab_size)

    @property
    def frame_s(self) -> float:
        """Seconds per frame of ``log_probs``."""
        return super().frame_s / self.upsampling

    def forward(self, features: Tensor, feature_lengths: Tensor, **batch) -> dict[str, Tensor]:
        """features [B, T, F] -> log_probs [B, k T', V] (float32, natural log), log_prob_lengths [B], encoded
        [B, T', D], encoded_lengths [B]."""
        encoded, encoded_lengths = self.encode(features, feature_lengths)
        B, T, _ = encoded.shape
        logits = self.head(encoded).view(B, T * self.upsampling, -1)
        return {
            "log_probs": logits.float().log_softmax(-1),
            "log_prob_lengths": encoded_lengths * self.upsampling,
            "encoded": encoded,
            "encoded_lengths": encoded_lengths,
        }

    def search_inputs(self, outputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """log_probs [B, k T', V] and their lengths [B]."""
        return outputs["log_probs"], outputs["log_prob_lengths"]
