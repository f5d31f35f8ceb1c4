"""A transducer without a network: its frames say which token they hold, and it says none twice in a row."""

from __future__ import annotations

import torch
from torch import Tensor


class ConstructedTransducer:
    """What the searches ask of a model, on frames that ``frames`` makes."""

    def __init__(self, vocab_size: int) -> None:
        self.vocab_size, self.predictor = vocab_size, self

    @staticmethod
    def frames(spoken: dict[int, int], count: int, vocab_size: int, probability: float) -> Tensor:
        """Frame -> token that is so probable in it; all others are blank. [1, count, V]"""
        encoded = torch.full((1, count, vocab_size), -20.0)
        encoded[..., 0] = 0.0
        for frame, token in spoken.items():
            encoded[0, frame, token] = torch.tensor(probability / (1 - probability)).log()
        return encoded

    def begin(self, batch_size: int) -> tuple[Tensor]:
        return (torch.zeros(batch_size, 1),)

    def predict(self, tokens: Tensor, state: tuple[Tensor]) -> tuple[Tensor, tuple[Tensor]]:
        said = torch.nn.functional.one_hot(tokens, self.vocab_size).float()
        said[:, 0] = 0.0
        return -40 * said, state

    def joint(self, joint_encoded: Tensor, joint_predicted: Tensor) -> Tensor:
        return (joint_encoded + joint_predicted).log_softmax(-1)
