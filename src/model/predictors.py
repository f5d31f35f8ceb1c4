"""What has been said so far, as a vector: the predictors of transducers, and what a language model is made of.

Every predictor answers for whole texts (training) and token by token (search), where its state is a tuple of tensors
[n, ...] that a beam search can gather. Token 0 stands for the begin of a text.
"""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from src.utils.build import check_counts

State = tuple[Tensor, ...]


class Predictor(Protocol):
    """What a transducer and its searches ask of one."""

    dim: int  # D, of its outputs

    def __call__(self, tokens: Tensor) -> Tensor:
        """tokens [B, U] -> [B, U + 1, D]: an output before each token and after the last one."""

    def begin(self, batch_size: int) -> State:
        """The state before any token; token 0 comes first."""

    def step(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        """One more token [n] -> the output after it [n, D], and the state."""


class LSTMPredictor(nn.Module):
    """Embedding and LSTM layers.

    Args:
        vocab_size: V, token 0 included.
        dim: of embedding and layers, D.
        num_layers: of the LSTM, L.
        dropout: on the embedding, between layers and on the output.

    Example:
        >>> predictor = LSTMPredictor(vocab_size=5, dim=8)
        >>> predictor(torch.tensor([[1, 2, 3]])).shape
        torch.Size([1, 4, 8])
    """

    def __init__(self, vocab_size: int, dim: int = 320, num_layers: int = 1, dropout: float = 0.1) -> None:
        super().__init__()
        check_counts(dim=dim, num_layers=num_layers)
        self.dim = dim
        self.embedding = nn.Embedding(vocab_size, dim)
        nn.init.normal_(self.embedding.weight, std=dim**-0.5)
        between = dropout if num_layers > 1 else 0.0
        self.lstm = nn.LSTM(dim, dim, num_layers, batch_first=True, dropout=between)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens [B, U] -> [B, U + 1, D]."""
        outputs, _ = self.lstm(self.dropout(self.embedding(F.pad(tokens, (1, 0)))))
        return self.dropout(outputs)

    def begin(self, batch_size: int) -> State:
        """Hidden and cell, [batch, L * D] each."""
        size = self.lstm.num_layers * self.dim
        return (self.embedding.weight.new_zeros(batch_size, size),) * 2

    def step(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        """tokens [n], state -> [n, D], state."""
        output, after = self.embedding(tokens), []
        layers = (part.chunk(self.lstm.num_layers, 1) for part in state)
        for before, weights in zip(zip(*layers, strict=True), self.lstm.all_weights, strict=True):
            # One step of a few texts: nn.LSTM's preparations for a long one would take longer than all the rest.
            after.append(torch.lstm_cell(output, before, *weights))
            output = after[-1][0]
        return output, tuple(torch.cat(part, 1) for part in zip(*after, strict=True))


class StatelessPredictor(nn.Module):
    """Embedding and a convolution over the last few tokens (Ghodsi et al., ICASSP 2020): often as good, and fast.

    Args:
        vocab_size: V, token 0 included.
        dim: of embedding and output, D.
        context: tokens that it sees, C.
        dropout: on the output.

    Example: it has forgotten all but the last two tokens
        >>> predictor = StatelessPredictor(vocab_size=5, dim=8, context=2).eval()
        >>> outputs = predictor(torch.tensor([[1, 2, 3], [4, 2, 3]]))
        >>> torch.equal(outputs[0, 3], outputs[1, 3]), torch.equal(outputs[0, 2], outputs[1, 2])
        (True, False)
    """

    def __init__(self, vocab_size: int, dim: int = 320, context: int = 2, dropout: float = 0.1) -> None:
        super().__init__()
        check_counts(dim=dim, context=context)
        self.dim, self.context = dim, context
        self.embedding = nn.Embedding(vocab_size, dim)
        self.convolution = nn.Conv1d(dim, dim, context)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens [B, U] -> [B, U + 1, D]."""
        embedded = self.embedding(F.pad(tokens, (self.context, 0)))
        return self.dropout(self.convolution(embedded.transpose(1, 2)).relu().transpose(1, 2))

    def begin(self, batch_size: int) -> State:
        """The last C - 1 tokens [batch, C - 1]."""
        shape = batch_size, self.context - 1
        return (torch.zeros(shape, dtype=torch.long, device=self.embedding.weight.device),)

    def step(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        """tokens [n], state -> [n, D], state."""
        seen = torch.cat([state[0], tokens[:, None]], 1)
        embedded = self.embedding(seen).transpose(1, 2)
        # A convolution with one place to go: a product, which takes half the time.
        output = F.linear(embedded.flatten(1), self.convolution.weight.flatten(1), self.convolution.bias)
        return output.relu(), (seen[:, 1:],)
