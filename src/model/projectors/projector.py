"""What a projector is: the bridge from an encoder's frames to the vectors that a language model reads as tokens."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from src.utils.errors import UserError
from src.utils.masks import valid_positions
from src.utils.memory import is_out_of_memory


class Projected(NamedTuple):
    """What a language model is shown of B clips."""

    vectors: Tensor  # [B, P, H], zeros beyond the lengths
    lengths: Tensor  # [B]
    auxiliary: Tensor | None = (
        None  # a mean to be minimised beside the objective: routers that use all experts
    )


class Projector(nn.Module, ABC):
    """Settings first, widths later: the encoder and the language model know them, and no YAML repeats them.

    A projector's result for a clip depends neither on padding nor on the clip's neighbours.
    """

    def connect(self, dim_in: int, dim_out: int) -> Projector:
        """Makes the layers, from an encoder of ``dim_in`` to a language model of ``dim_out``; returns itself.

        Raises ``UserError`` for layers that the memory does not do for.
        """
        sizes = {k: v for k, v in vars(self).items() if type(v) is int}
        self.dim_in, self.dim_out = dim_in, dim_out
        try:
            self.make_layers(dim_in, dim_out)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            given = ", ".join(f"{name}={size}" for name, size in sizes.items())
            raise UserError(
                f"projector: its layers do not fit into the memory ({given}, from {dim_in} to {dim_out}); choose less"
            ) from None
        return self

    @abstractmethod
    def make_layers(self, dim_in: int, dim_out: int) -> None:
        """Makes the layers; widths E (encoder) and H (language model)."""

    @abstractmethod
    def output_lengths(self, lengths: Tensor) -> Tensor:
        """Frames -> vectors, [B] -> [B]."""

    @abstractmethod
    def project(self, encoded: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor | None]:
        """encoded [B, T, E] (zeros beyond the lengths, T at least 1) -> vectors [B, P, H], and what is auxiliary."""

    def forward(self, encoded: Tensor, lengths: Tensor) -> Projected:
        """encoded [B, T, E], lengths [B] -> vectors [B, P, H] with their lengths."""
        encoded = encoded * valid_positions(lengths, encoded.size(1)).unsqueeze(-1)
        vectors, auxiliary = self.project(encoded, lengths)
        lengths = self.output_lengths(lengths)
        return Projected(
            vectors * valid_positions(lengths, vectors.size(1)).unsqueeze(-1), lengths, auxiliary
        )


def stack_frames(encoded: Tensor, stack: int, padded: bool) -> Tensor:
    """encoded [B, T, E] -> [B, T', stack E]: neighbours side by side.

    ``padded``: T' = ceil(T / stack), the last stack filled up with zeros; else T' = (T - stack) // stack + 1, and the
    frames that are left over are dropped.

    >>> import torch
    >>> frames = torch.arange(5.0).view(1, 5, 1)
    >>> stack_frames(frames, 2, padded=False).tolist(), stack_frames(frames, 2, padded=True).tolist()
    ([[[0.0, 1.0], [2.0, 3.0]]], [[[0.0, 1.0], [2.0, 3.0], [4.0, 0.0]]])
    """
    B, T, E = encoded.shape
    kept = F.pad(encoded, (0, 0, 0, -T % stack)) if padded else encoded[:, : T - T % stack]
    return kept.reshape(B, -1, stack * E)


def stacked_lengths(lengths: Tensor, stack: int, padded: bool) -> Tensor:
    """What ``stack_frames`` makes of lengths [B]."""
    return (lengths + stack - 1) // stack if padded else (lengths - stack) // stack + 1
