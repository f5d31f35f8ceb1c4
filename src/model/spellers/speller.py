"""What a speller is: the part of an attention model that writes a text while it looks at what was heard.

It answers for whole texts (training) and token by token (search). Token 0 begins a text and ends it. What it needs of
the encoder, the *memory*, is prepared once for each utterance; what it remembers of a text, the *state*, is a tuple of
tensors [n, ...] whose rows a beam search can gather.
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

Memory = tuple[Tensor, ...]
State = tuple[Tensor, ...]


class Speller(Protocol):
    """What the model and its searches ask of one."""

    dim: int  # D, of the frames that it looks at

    def __call__(self, tokens: Tensor, heard: Tensor, lengths: Tensor) -> Tensor:
        """tokens [B, U], heard [B, T, D], lengths [B] -> logits [B, U + 1, V] of each token and of the end."""

    def remember(self, heard: Tensor, lengths: Tensor) -> Memory:
        """heard [B, T, D], lengths [B] -> the memory, tensors [B, ...]."""

    def begin(self, memory: Memory, beam_size: int) -> State:
        """The state before any token of B * K texts, K of each utterance."""

    def step(self, tokens: Tensor, state: State, memory: Memory) -> tuple[Tensor, Tensor, State]:
        """tokens [B, K] (0 first) after their states [B * K, ...] -> logits of the next ones [B, K, V], where it
        looked for them [B, K, T] (weights that sum to 1), and the states after them."""

    def looked(self, tokens: Tensor, heard: Tensor, lengths: Tensor) -> Tensor:
        """As the call -> where each head (the last layer's) looks for each token and for the end, [B, H, U + 1, T]."""
