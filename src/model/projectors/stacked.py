"""Projectors that stack neighbouring frames and send each stack through a small network of its own."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from src.model.projectors.projector import Projector, stack_frames, stacked_lengths
from src.utils.build import check_counts
from src.utils.masks import valid_positions


class RMSNorm(nn.RMSNorm):
    """Computed in float32, also under autocast; eps as language models have it."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        """[..., dim] -> the same, in x's dtype."""
        return super().forward(x.float()).to(x.dtype)


class StackedProjector(Projector):
    """``stack`` frames side by side; ``padded``: the last ones filled up with zeros, not dropped."""

    def __init__(self, stack: int, padded: bool) -> None:
        super().__init__()
        check_counts(stack=stack)
        self.stack, self.padded = stack, padded

    def output_lengths(self, lengths: Tensor) -> Tensor:
        return stacked_lengths(lengths, self.stack, self.padded)

    def project(self, encoded: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor | None]:
        return self.layers(stack_frames(encoded, self.stack, self.padded)), None


class MLPProjector(StackedProjector):
    """Linear, RMSNorm, GELU, Linear, RMSNorm; no biases. The last norm makes its vectors as loud as embeddings.

    E k h + h + h H + H parameters.

    Args:
        stack: k, frames side by side; what is left over is dropped.
        hidden_dim: h.

    Example:
        >>> projector = MLPProjector(stack=4, hidden_dim=32).connect(dim_in=16, dim_out=8)
        >>> projected = projector(torch.randn(2, 10, 16), torch.tensor([10, 7]))
        >>> projected.vectors.shape, projected.lengths.tolist(), sum(p.numel() for p in projector.parameters())
        (torch.Size([2, 2, 8]), [2, 1], 2344)
    """

    def __init__(self, stack: int = 4, hidden_dim: int = 2048) -> None:
        super().__init__(stack, padded=False)
        check_counts(hidden_dim=hidden_dim)
        self.hidden_dim = hidden_dim

    def make_layers(self, dim_in: int, dim_out: int) -> None:
        self.layers = nn.Sequential(
            nn.Linear(self.stack * dim_in, self.hidden_dim, bias=False),
            RMSNorm(self.hidden_dim),
            nn.GELU(),
            nn.Linear(self.hidden_dim, dim_out, bias=False),
            RMSNorm(dim_out),
        )


class SwiGLUProjector(StackedProjector):
    """RMSNorm, silu(gate) * up, down, RMSNorm (Shazeer, arXiv 2002.05202); no biases, weights from N(0, 0.02).

    E k + 2 E k h + h H + H parameters.

    Args:
        stack: k, frames side by side; the last ones are filled up with zeros.
        hidden_dim: h.
    """

    def __init__(self, stack: int = 5, hidden_dim: int = 8192) -> None:
        super().__init__(stack, padded=True)
        check_counts(hidden_dim=hidden_dim)
        self.hidden_dim = hidden_dim

    def make_layers(self, dim_in: int, dim_out: int) -> None:
        width = self.stack * dim_in
        self.norm_in, self.norm_out = RMSNorm(width), RMSNorm(dim_out)
        self.gate = nn.Linear(width, self.hidden_dim, bias=False)
        self.up = nn.Linear(width, self.hidden_dim, bias=False)
        self.down = nn.Linear(self.hidden_dim, dim_out, bias=False)
        for layer in (self.gate, self.up, self.down):
            nn.init.normal_(layer.weight, std=0.02)

    def layers(self, x: Tensor) -> Tensor:
        """[B, P, E k] -> [B, P, H]."""
        x = self.norm_in(x)
        return self.norm_out(self.down(F.silu(self.gate(x)) * self.up(x)))


class LinearProjector(StackedProjector):
    """RMSNorm, Linear, dropout, RMSNorm; E k + (E k + 1) H + H parameters.

    Args:
        stack: k, frames side by side; the last ones are filled up with zeros.
        dropout: of the linear layer's outputs.
    """

    def __init__(self, stack: int = 5, dropout: float = 0.05) -> None:
        super().__init__(stack, padded=True)
        self.dropout = dropout

    def make_layers(self, dim_in: int, dim_out: int) -> None:
        linear = nn.Linear(self.stack * dim_in, dim_out)
        nn.init.xavier_uniform_(linear.weight)
        nn.init.zeros_(linear.bias)
        self.layers = nn.Sequential(
            RMSNorm(self.stack * dim_in), linear, nn.Dropout(self.dropout), RMSNorm(dim_out)
        )


class MoEProjector(StackedProjector):
    """A mixture of experts: one that sees every stack, and of ``num_experts`` others the ``top`` that a router picks.

    Every expert is Linear(E k, h), GELU, Linear(h, H), without biases; the router's choices are weighted by their
    probabilities, which are made to sum to 1. Against routers that forget experts, its logits are multiplied by
    U(1 - jitter, 1 + jitter) in training, and two means are to be minimised: ``balance`` N mean_n (p_n - 1/N)^2, p_n
    the mean probability of an expert, and ``calm`` mean logsumexp(logits)^2 (arXiv 2202.08906, eq. 5).

    E k + (N + 1) (E k + H) h + N E k parameters.

    Args:
        stack: k, frames side by side; what is left over is dropped.
        hidden_dim: h.
        num_experts: N.
        top: how many of them each stack is sent to.
        jitter, balance, calm: see above.
    """

    def __init__(
        self,
        stack: int = 4,
        hidden_dim: int = 2048,
        num_experts: int = 4,
        top: int = 2,
        jitter: float = 0.01,
        balance: float = 0.01,
        calm: float = 1e-4,
    ) -> None:
        super().__init__(stack, padded=False)
        check_counts(hidden_dim=hidden_dim, num_experts=num_experts, top=top)
        if not 1 <= top <= num_experts:
            raise ValueError(f"top={top} must be from 1 to num_experts={num_experts}")
        self.hidden_dim, self.num_experts, self.top = hidden_dim, num_experts, top
        self.jitter, self.balance, self.calm = jitter, balance, calm

    def make_layers(self, dim_in: int, dim_out: int) -> None:
        width = self.stack * dim_in
        self.norm = RMSNorm(width)
        self.router = nn.Linear(width, self.num_experts, bias=False)
        self.experts = nn.ModuleList(  # the first one is everybody's
            nn.Sequential(
                nn.Linear(width, self.hidden_dim, bias=False),
                nn.GELU(),
                nn.Linear(self.hidden_dim, dim_out, bias=False),
            )
            for _ in range(1 + self.num_experts)
        )

    def project(self, encoded: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor | None]:
        x = self.norm(stack_frames(encoded, self.stack, self.padded))
        logits = self.router(x).float()
        if self.training and self.jitter:
            logits = logits * torch.empty_like(logits).uniform_(1 - self.jitter, 1 + self.jitter)
        probabilities = logits.softmax(-1)  # [B, P, N]
        best, places = probabilities.topk(self.top, dim=-1)
        weights = torch.zeros_like(probabilities).scatter(-1, places, best / best.sum(-1, keepdim=True))
        shared, *routed = (expert(x) for expert in self.experts)
        weighted = [weights[..., n, None].to(y.dtype) * y for n, y in enumerate(routed)]
        vectors = shared + torch.stack(weighted).sum(0)
        return vectors, self._auxiliary(logits, probabilities, self.output_lengths(lengths))

    def _auxiliary(self, logits: Tensor, probabilities: Tensor, lengths: Tensor) -> Tensor:
        """logits and probabilities [B, P, N]; only what lies within the lengths [B] counts."""
        real = valid_positions(lengths, logits.size(1)).unsqueeze(-1)
        count, N = real.sum().clamp_min(1), self.num_experts
        used = (probabilities * real).sum((0, 1)) / count
        balance = N * (used - real.any() / N).square().mean()
        calm = (logits.logsumexp(-1, keepdim=True).square() * real).sum() / count
        return self.balance * balance + self.calm * calm
