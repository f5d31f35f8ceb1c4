"""The speller of Listen, Attend and Spell: LSTM layers, and attention that knows where it looked last."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from src.model.dropout import Dropout
from src.model.frame_attention import audible, masked_softmax
from src.model.spellers.speller import Memory, State
from src.utils.build import PartOfOne, check, check_counts


class LocationAttention(nn.Module):
    """e_t = w tanh(W s + V h_t + U f_t + b) with f = F * previous weights (Chorowski et al., arXiv 1506.07503, eq. 9).

    Args:
        query_dim, dim: of the speller's state s, and of the frames h.
        hidden_dim: of the sum, A.
        channels, kernel_size: of the convolution F over the previous weights; the kernel is odd.
    """

    def __init__(
        self, query_dim: int, dim: int, hidden_dim: int = 128, channels: int = 10, kernel_size: int = 31
    ) -> None:
        super().__init__()
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size={kernel_size} must be odd")
        self.from_query = nn.Linear(query_dim, hidden_dim)
        self.from_frame = nn.Linear(dim, hidden_dim, bias=False)
        self.location = nn.Conv1d(1, channels, kernel_size, padding=kernel_size // 2, bias=False)
        self.from_location = nn.Linear(channels, hidden_dim, bias=False)
        self.energy = nn.Linear(hidden_dim, 1, bias=False)

    def forward(
        self, query: Tensor, keys: Tensor, heard: Tensor, valid: Tensor, before: Tensor
    ) -> tuple[Tensor, Tensor]:
        """query [B, K, Q], keys = from_frame(heard) [B, T, A], heard [B, T, D], valid [B, T], previous weights
        [B, K, T] -> context [B, K, D], weights [B, K, T]."""
        B, K, T = before.shape
        seen = self.location(before.to(heard.dtype).reshape(B * K, 1, T)).transpose(1, 2)
        hidden = self.from_location(seen).view(B, K, T, -1) + keys[:, None]
        energy = self.energy((hidden + self.from_query(query).unsqueeze(2)).tanh()).squeeze(-1)
        weights = masked_softmax(energy, valid[:, None])
        return weights.to(heard.dtype) @ heard, weights


class LSTMSpeller(nn.Module):
    """s_i = LSTM(s_{i-1}, [y_{i-1}; c_{i-1}]), c_i = attention(s_i), P(y_i) from [s_i; c_i] (1508.01211, eq. 6-8).

    Args:
        vocab_size: V, token 0 included.
        dim: of the layers and of the frames that it looks at, D (512 in the paper).
        num_layers: of the LSTM (2 in the paper).
        attention_dim: of the attention's hidden layer.
        dropout: on the embedding, between layers and before the output.
        sampling: in training, the share of tokens that are drawn from its own distribution instead of taken from the
            text (scheduled sampling, 10 % in the paper's sec. 3.3).

    Example:
        >>> speller = LSTMSpeller(vocab_size=5, dim=8)
        >>> speller(torch.tensor([[1, 2, 3]]), torch.randn(1, 20, 8), torch.tensor([20])).shape
        torch.Size([1, 4, 5])
    """

    def __init__(
        self,
        vocab_size: int,
        dim: int = 512,
        num_layers: int = 2,
        attention_dim: int = 128,
        dropout: float = 0.1,
        sampling: float = 0.0,
    ) -> None:
        super().__init__()
        check_counts(dim=dim, num_layers=num_layers, attention_dim=attention_dim)
        check("sampling", sampling, PartOfOne)
        self.dim, self.sampling = dim, sampling
        self.embedding = nn.Embedding(vocab_size, dim)
        self.layers = nn.ModuleList(
            nn.LSTMCell(2 * dim if depth == 0 else dim, dim) for depth in range(num_layers)
        )
        self.attention = LocationAttention(dim, dim, attention_dim)
        self.output = nn.Linear(2 * dim, vocab_size)
        self.dropout = Dropout(dropout)

    def forward(self, tokens: Tensor, heard: Tensor, lengths: Tensor) -> Tensor:
        """tokens [B, U], heard [B, T, D], lengths [B] -> logits [B, U + 1, V]."""
        memory = self.remember(heard, lengths)
        state = self.begin(memory, 1)
        logits: list[Tensor] = []
        for token in F.pad(tokens, (1, 0)).split(1, dim=1):
            if logits and self.training and self.sampling:
                own = logits[-1].detach()[:, 0].float().softmax(-1).multinomial(1)
                token = torch.where(torch.rand(own.shape, device=own.device) < self.sampling, own, token)
            next_logits, _, state = self.step(token, state, memory)
            logits.append(next_logits)
        return torch.cat(logits, 1)

    def looked(self, tokens: Tensor, heard: Tensor, lengths: Tensor) -> Tensor:
        """As ``Speller`` has it, with one head."""
        memory = self.remember(heard, lengths)
        state, rows = self.begin(memory, 1), []
        for token in F.pad(tokens, (1, 0)).split(1, dim=1):
            _, weights, state = self.step(token, state, memory)
            rows.append(weights)
        return torch.cat(rows, 1).unsqueeze(1)

    def remember(self, heard: Tensor, lengths: Tensor) -> Memory:
        """The frames [B, T, D], as keys [B, T, A], and which are real [B, T]."""
        return heard, self.attention.from_frame(heard), audible(lengths, heard.size(1))

    def begin(self, memory: Memory, beam_size: int) -> State:
        """Hidden and cell of each layer, [n, D] each; the context [n, D]; where it looked, [n, T]: nowhere yet."""
        B, T, D = memory[0].shape
        zeros = memory[0].new_zeros(B * beam_size, D)
        nowhere = zeros.new_zeros(B * beam_size, T)
        return (*[zeros] * (2 * len(self.layers)), zeros, nowhere)

    def step(self, tokens: Tensor, state: State, memory: Memory) -> tuple[Tensor, Tensor, State]:
        """As ``Speller`` has it."""
        heard, keys, valid = memory
        *layers, context, weights = state
        x = torch.cat([self.dropout(self.embedding(tokens)).flatten(0, 1), context], -1)
        after = []
        for depth, layer in enumerate(self.layers):
            hidden, cell = layer(x if depth == 0 else self.dropout(x), layers[2 * depth : 2 * depth + 2])
            after += [hidden, cell]
            x = hidden
        shape = tokens.shape
        context, weights = self.attention(x.view(*shape, -1), keys, heard, valid, weights.view(*shape, -1))
        logits = self.output(self.dropout(torch.cat([x.view(*shape, -1), context], -1)))
        return logits, weights, (*after, context.flatten(0, 1), weights.flatten(0, 1))
