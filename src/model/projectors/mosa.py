"""MOSA: a dense mixture of simple adapters behind two convolutions."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from src.model.projectors.projector import Projector
from src.utils.build import check_counts
from src.utils.masks import valid_positions


class MOSAProjector(Projector):
    """Two convolutions of stride 2, and a softmax over experts that all answer for every frame.

    Conv1d(3, stride 2) and GELU twice, E -> E -> H; router Linear(H, r), ReLU, Linear(r, N), softmax; each of N
    experts Linear(H, h), GELU, Linear(h, H). A quarter of the frames remains, rounded up twice.

    (3 E + 1) E + (3 E + 1) H + (H + 1) r + (r + 1) N + N ((H + 1) h + (h + 1) H) parameters.

    Args:
        num_experts: N.
        hidden_dim: h, of an expert.
        router_dim: r.

    Example:
        >>> import torch
        >>> projector = MOSAProjector(hidden_dim=32, router_dim=4).connect(dim_in=16, dim_out=8)
        >>> projected = projector(torch.randn(2, 10, 16), torch.tensor([10, 4]))
        >>> projected.vectors.shape, projected.lengths.tolist()
        (torch.Size([2, 3, 8]), [3, 1])
    """

    def __init__(self, num_experts: int = 4, hidden_dim: int = 4096, router_dim: int = 512) -> None:
        super().__init__()
        check_counts(num_experts=num_experts, hidden_dim=hidden_dim, router_dim=router_dim)
        self.num_experts, self.hidden_dim, self.router_dim = num_experts, hidden_dim, router_dim

    def make_layers(self, dim_in: int, dim_out: int) -> None:
        self.convolutions = nn.ModuleList(
            nn.Conv1d(dim_in, width, kernel_size=3, stride=2, padding=1) for width in (dim_in, dim_out)
        )
        self.router = nn.Sequential(
            nn.Linear(dim_out, self.router_dim), nn.ReLU(), nn.Linear(self.router_dim, self.num_experts)
        )
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(dim_out, self.hidden_dim), nn.GELU(), nn.Linear(self.hidden_dim, dim_out))
            for _ in range(self.num_experts)
        )

    def output_lengths(self, lengths: Tensor) -> Tensor:
        return (lengths + 3) // 4

    def project(self, encoded: Tensor, lengths: Tensor) -> tuple[Tensor, None]:
        x = encoded
        for convolution in self.convolutions:
            x = F.gelu(convolution(x.transpose(1, 2))).transpose(1, 2)
            lengths = (lengths + 1) // 2
            x = x * valid_positions(lengths, x.size(1)).unsqueeze(
                -1
            )  # the next one sees zeros beyond the end
        weights = self.router(x).softmax(-1)  # [B, P, N]
        return sum(weights[..., n, None] * expert(x) for n, expert in enumerate(self.experts)), None
