"""Listen, Attend and Spell (Chan et al., arXiv 1508.01211): an encoder listens, a speller looks at that and writes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from src.model.speech_model import SpeechModelWithCTC, require_parts
from src.model.spellers.speller import Memory, Speller, State


class LASModel(SpeechModelWithCTC):
    """P(token or end | all frames, tokens so far), and optionally CTC on the encoder (Kim et al., arXiv 1609.06773).

    Args:
        frontend: audio -> features.
        encoder: features -> encoded; has ``dim`` and ``subsampling_factor``.
        speller: writes; has ``dim``.
        vocab_size: V; token 0 begins and ends a text, and is CTC's blank.
        ctc: whether there is a CTC layer on the encoder, which training and searches may use.

    Example:
        >>> from src.model.encoders import MLPEncoder
        >>> from src.model.spellers import LSTMSpeller
        >>> from src.transforms import LogMel
        >>> model = LASModel(LogMel(80), MLPEncoder(80, dim=32, stack=4), LSTMSpeller(29, dim=16), vocab_size=29)
        >>> tokens = torch.tensor([[5, 6, 7], [8, 0, 0]])
        >>> model(torch.randn(2, 100, 80), torch.tensor([100, 50]), tokens)["next_log_probs"].shape
        torch.Size([2, 4, 29])
    """

    def __init__(
        self, frontend: nn.Module, encoder: nn.Module, speller: Speller, vocab_size: int, ctc: bool = False
    ) -> None:
        super().__init__(frontend, encoder)
        require_parts(speller=speller)
        self.from_encoder = nn.Linear(encoder.dim, speller.dim)
        self.speller = speller
        self.ctc_head = nn.Linear(encoder.dim, vocab_size) if ctc else None

    def forward(
        self, features: Tensor, feature_lengths: Tensor, tokens: Tensor | None = None, **batch
    ) -> dict[str, Tensor]:
        """features [B, T, F], tokens [B, U] (for the objective) -> by name:

        encoded [B, T', D], encoded_lengths [B]; with tokens next_log_probs [B, U + 1, V] (float32) of each token and
        of the end, and with a CTC layer log_probs [B, T', V] and log_prob_lengths [B].
        """
        encoded, encoded_lengths = self.encode(features, feature_lengths)
        outputs = {"encoded": encoded, "encoded_lengths": encoded_lengths}
        if tokens is not None:
            logits = self.speller(tokens, self.from_encoder(encoded), encoded_lengths)
            outputs["next_log_probs"] = logits.float().log_softmax(-1)
            outputs |= self.ctc_outputs(encoded, encoded_lengths)
        return outputs

    def remember(self, encoded: Tensor, encoded_lengths: Tensor) -> Memory:
        """encoded [B, T', D], encoded_lengths [B] -> what ``step`` looks at."""
        return self.speller.remember(self.from_encoder(encoded), encoded_lengths)

    def step(self, tokens: Tensor, state: State, memory: Memory) -> tuple[Tensor, Tensor, State]:
        """tokens [B, K] after their states -> log_probs [B, K, V] (float32), weights [B, K, T'], the states after."""
        logits, weights, state = self.speller.step(tokens, state, memory)
        return logits.float().log_softmax(-1), weights, state

    @torch.inference_mode()
    def attention(self, features: Tensor, feature_lengths: Tensor, tokens: Tensor) -> Tensor:
        """Where it looks for each token of texts [B, U] and for their ends: [B, U + 1, T'], each row sums to 1."""
        return self.looked(*self.encode(features, feature_lengths), tokens).mean(1)

    def looked(self, encoded: Tensor, encoded_lengths: Tensor, tokens: Tensor) -> Tensor:
        """encoded [B, T', D], encoded_lengths [B], texts [B, U] -> ``attention`` head by head, [B, H, U + 1, T']."""
        return self.speller.looked(tokens, self.from_encoder(encoded), encoded_lengths)

    def search_inputs(self, outputs: dict[str, Tensor]) -> tuple[LASModel, Tensor, Tensor]:
        """The model, which is asked step by step, encoded [B, T', D] and encoded_lengths [B]."""
        return self, outputs["encoded"], outputs["encoded_lengths"]
