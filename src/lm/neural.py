"""A small recurrent language model of tokens, and its place in a beam search."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from src.checkpoint import Checkpoint
from src.decoding.scorer import touched
from src.decoding.settings import is_path, require
from src.model.predictors import LSTMPredictor
from src.utils.errors import UserError

__all__ = ["LSTMLanguageModel"]  # what a checkpoint may name


class LSTMLanguageModel(LSTMPredictor):
    """P(token | tokens before): embedding, LSTM layers, and the embedding again as the output layer (Press and Wolf,
    arXiv 1608.05859). Token 0 begins and ends a sentence.

    Args:
        vocab_size: V, token 0 included.
        dim: of embedding and layers, D.
        num_layers: of the LSTM, L.
        dropout: on the embedding, between layers and before the output.

    Example:
        >>> lm = LSTMLanguageModel(vocab_size=5, dim=8)
        >>> lm(torch.tensor([[1, 2, 3]]), torch.tensor([3]))["log_probs"].shape  # of 3 tokens and the end
        torch.Size([1, 4, 5])
    """

    def __init__(self, vocab_size: int, dim: int = 512, num_layers: int = 2, dropout: float = 0.2) -> None:
        super().__init__(vocab_size, dim, num_layers, dropout)
        self.bias = nn.Parameter(torch.zeros(vocab_size))

    @property
    def device(self) -> torch.device:
        return self.bias.device

    def forward(self, tokens: Tensor, token_lengths: Tensor, **batch) -> dict[str, Tensor]:
        """tokens [B, U], token_lengths [B] -> log_probs [B, U + 1, V] (float32) of each token and of the end."""
        return {"log_probs": self.log_probs(super().forward(tokens))}

    def log_probs(self, outputs: Tensor) -> Tensor:
        """[..., D] -> [..., V] (float32) of what comes next."""
        return nn.functional.linear(outputs, self.embedding.weight, self.bias).float().log_softmax(-1)


class _Texts(NamedTuple):
    """The state of ``NeuralScorer``."""

    hidden: Tensor  # [B, K, L * D]
    cell: Tensor  # [B, K, L * D]
    log_probs: Tensor  # [B, K, V] of every next token; column 0: of the end


class NeuralScorer:
    """log P(token | tokens before) of a trained language model, added with every token.

    Args:
        lm: the model, or the checkpoint or run that ``train.py -cn=lm`` made.
        tokens: of the recogniser's tokenizer, which must be the model's.

    Raises ``UserError`` for no path, no such checkpoint, or one with other tokens.
    """

    def __init__(self, lm: LSTMLanguageModel | str | Path, tokens: Sequence[str]) -> None:
        fits = isinstance(lm, LSTMLanguageModel) or is_path(lm)
        require(fits, "lm", lm, "the path of a checkpoint or run of train.py -cn=lm, such as saved/lm")
        if not isinstance(lm, LSTMLanguageModel):
            try:
                checkpoint = Checkpoint.open(lm)
            except UserError as error:
                raise UserError(f"{error}; python train.py -cn=lm trains one") from None
            if checkpoint.text_encoder().tokens != list(tokens):
                raise UserError(
                    f"{lm}: its tokens are not the recogniser's; train it with the recogniser's tokenizer"
                )
            lm = checkpoint.model(LSTMLanguageModel)
        self.lm = lm.eval()

    def to(self, device: torch.device | str) -> NeuralScorer:
        self.lm.to(device)
        return self

    @torch.inference_mode()
    def start(self, batch_size: int) -> _Texts:
        begin = torch.zeros(batch_size, dtype=torch.long, device=self.lm.device)
        output, state = self.lm.step(begin, self.lm.begin(batch_size))
        return _Texts(*(part[:, None] for part in (*state, self.lm.log_probs(output))))

    def score(self, state: _Texts) -> Tensor:
        return state.log_probs

    @torch.inference_mode()
    def advance(self, state: _Texts, parents: Tensor, tokens: Tensor) -> _Texts:
        hidden, cell, log_probs = (
            part.gather(1, parents.unsqueeze(2).expand(-1, -1, part.size(2))).flatten(0, 1) for part in state
        )
        slots = touched(tokens)
        grows = tokens.flatten()[slots, None] >= 0
        old = hidden[slots], cell[slots], log_probs[slots]
        output, after = self.lm.step(tokens.flatten()[slots].clamp_min(0), old[:2])
        new = *after, self.lm.log_probs(output)
        for part, before, now in zip((hidden, cell, log_probs), old, new, strict=True):
            part[slots] = torch.where(grows, now, before)
        return _Texts(*(part.unflatten(0, parents.shape) for part in (hidden, cell, log_probs)))

    def finish(self, state: _Texts) -> Tensor:
        """[B, K]: the end of the sentence."""
        return state.log_probs[..., 0]
