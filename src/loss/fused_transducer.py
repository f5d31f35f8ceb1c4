"""The transducer loss without the logits of all nodes, which are by far the largest tensor of a training.

It joins encoder and predictor for some nodes at a time, once for the likelihood and once more for the gradient, and
that only for nodes that any path is likely to pass. Nodes beyond an utterance's frames or tokens are never joined.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from src.loss.lattice import transducer_arcs
from src.loss.transducer import arc_labels, checked_lengths, reduction_of
from src.utils.masks import valid_positions

SCORES_AT_ONCE = 2**20  # numbers; a few megabytes stay in the cache
LEAST_OCCUPATION = 1e-9  # of a node, for its gradient to be computed


def fused_transducer_loss(
    encoded: Tensor,
    predicted: Tensor,
    weight: Tensor,
    bias: Tensor,
    targets: Tensor,
    encoded_lengths: Tensor,
    target_lengths: Tensor,
    blank: int = 0,
    reduction: str = "mean",
) -> Tensor:
    """``transducer_loss`` of the logits ``weight @ tanh(encoded[t] + predicted[u]) + bias``, which never exist at once.

    Its gradients leave out the nodes that less than 1e-9 of the alignments' probability passes through. There is no
    ``clamp``: no gradient by logits exists that it could be of.

    Args:
        encoded, predicted: [B, T, H] and [B, U + 1, H], as the joiner adds them.
        weight, bias: [V, H], [V] of its output layer.
        targets, encoded_lengths, target_lengths, blank, reduction: as for ``transducer_loss``.

    Example:
        >>> encoded, predicted = torch.randn(2, 5, 8), torch.randn(2, 4, 8)
        >>> joiner, targets = torch.nn.Linear(8, 6), torch.tensor([[1, 2, 3], [4, 5, 0]])
        >>> lengths = torch.tensor([5, 4]), torch.tensor([3, 2])
        >>> from src.loss.transducer import transducer_loss
        >>> fused = fused_transducer_loss(encoded, predicted, joiner.weight, joiner.bias, targets, *lengths)
        >>> logits = joiner((encoded.unsqueeze(2) + predicted.unsqueeze(1)).tanh())
        >>> torch.allclose(fused, transducer_loss(logits, targets, *lengths))
        True
    """
    reduced = reduction_of(reduction)
    nodes = *encoded.shape[:2], predicted.size(1)
    lengths = checked_lengths(nodes, targets, encoded_lengths, target_lengths)
    losses = _FusedTransducerLoss.apply(encoded, predicted, weight, bias, targets, *lengths, blank)
    return reduced(losses)


def joined_arcs(
    encoded: Tensor,
    predicted: Tensor,
    weight: Tensor,
    bias: Tensor,
    targets: Tensor,
    encoded_lengths: Tensor,
    target_lengths: Tensor,
    blank: int = 0,
) -> tuple[Tensor, Tensor]:
    """Arguments as for ``fused_transducer_loss`` -> log P of each node's blank and label arc, [B, T, U + 1] each, as
    ``transducer_arcs`` and ``best_path`` take them. Without gradients.

    Example:
        >>> encoded, predicted, joiner = torch.randn(1, 5, 8), torch.randn(1, 4, 8), torch.nn.Linear(8, 6)
        >>> lengths = torch.tensor([5]), torch.tensor([3])
        >>> arcs = joined_arcs(encoded, predicted, joiner.weight, joiner.bias, torch.tensor([[1, 2, 3]]), *lengths)
        >>> occupied = sum(transducer_arcs(*arcs, *lengths)[1:])  # of each node, by any path
        >>> occupied.sum().round().item()  # every path has T + U arcs
        8.0
    """
    with torch.no_grad():
        nodes = *encoded.shape[:2], predicted.size(1)
        frames, tokens = checked_lengths(nodes, targets, encoded_lengths, target_lengths)
        joiner = _Joiner(encoded, predicted, weight, bias, weight.dtype)
        _, blank_arc, label_arc = joiner.arcs(arc_labels(targets, tokens), frames, tokens, blank)
        return blank_arc, label_arc


class _FusedTransducerLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        encoded: Tensor,
        predicted: Tensor,
        weight: Tensor,
        bias: Tensor,
        targets: Tensor,
        frames: Tensor,
        tokens: Tensor,
        blank: int,
    ) -> Tensor:
        device = encoded.device.type
        ctx.dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype
        ctx.blank = blank
        labels = arc_labels(targets, tokens)
        joiner = _Joiner(encoded, predicted, weight, bias, ctx.dtype)
        normalizer, blank_arc, label_arc = joiner.arcs(labels, frames, tokens, blank)
        arcs = transducer_arcs(blank_arc, label_arc, frames, tokens)
        ctx.save_for_backward(encoded, predicted, weight, bias, labels, normalizer, arcs.blank, arcs.label)
        return -arcs.log_likelihood.to(joiner.score_dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        encoded, predicted, weight, bias, labels, normalizer, blank, label = ctx.saved_tensors
        joiner = _Joiner(encoded, predicted, weight, bias, ctx.dtype)
        nodes = ((blank + label) > LEAST_OCCUPATION).flatten().nonzero().squeeze(1)
        blank, label = ((part * gradient[:, None, None]).flatten().to(normalizer) for part in (blank, label))
        by_frame, by_token, by_weight, by_bias = (
            torch.zeros_like(x, dtype=joiner.score_dtype)
            for x in (joiner.encoded, joiner.predicted, weight, bias)
        )
        for part in joiner.parts(nodes):
            scores, hidden = joiner.scores(part)
            by_score = (scores - normalizer[part, None]).exp_().mul_((blank[part] + label[part]).unsqueeze(1))
            by_score[:, ctx.blank] -= blank[part]
            by_score.scatter_add_(1, joiner.label(labels, part), -label[part].unsqueeze(1))
            by_bias += by_score.sum(0)
            by_score = by_score.to(ctx.dtype)
            by_weight += by_score.T @ hidden
            by_sum = (by_score @ joiner.weight).to(joiner.score_dtype) * (
                1 - hidden.to(joiner.score_dtype).square()
            )
            by_frame.index_add_(0, joiner.frame(part), by_sum)
            by_token.index_add_(0, joiner.token(part), by_sum)
        by_frame, by_token = by_frame.view_as(encoded), by_token.view_as(predicted)
        results = zip(
            (by_frame, by_token, by_weight, by_bias), (encoded, predicted, weight, bias), strict=True
        )
        return *(result.to(of.dtype) for result, of in results), None, None, None, None


class _Joiner:
    """The joiner on any of the B * T * (U + 1) nodes, which are numbered in this order."""

    def __init__(
        self, encoded: Tensor, predicted: Tensor, weight: Tensor, bias: Tensor, dtype: torch.dtype
    ) -> None:
        self.encoded, self.predicted = encoded.flatten(0, 1).to(dtype), predicted.flatten(0, 1).to(dtype)
        self.weight, self.bias = weight.to(dtype), bias.to(dtype)
        self.shape = *encoded.shape[:2], predicted.size(1)
        self.per_utterance, self.columns = encoded.size(1) * predicted.size(1), predicted.size(1)
        self.score_dtype = torch.float64 if dtype == torch.float64 else torch.float32

    def arcs(
        self, labels: Tensor, frames: Tensor, tokens: Tensor, blank: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """labels [B, U + 1], frames and tokens [B] -> log of the sum over tokens [B T (U + 1)], and log P of the
        blank arcs and of the label arcs [B, T, U + 1]; zeros in nodes beyond an utterance's frames or tokens."""
        inside = valid_positions(frames, self.shape[1]).unsqueeze(2)
        inside = inside & valid_positions(tokens + 1, self.columns).unsqueeze(1)
        normalizer, blank_arc, label_arc = (
            torch.zeros(inside.numel(), dtype=self.score_dtype, device=self.encoded.device) for _ in range(3)
        )
        for part in self.parts(inside.flatten().nonzero().squeeze(1)):
            scores = self.scores(part)[0]
            normalizer[part] = scores.logsumexp(1)
            blank_arc[part] = scores[:, blank]
            label_arc[part] = scores.gather(1, self.label(labels, part)).squeeze(1)
        return normalizer, *((arc - normalizer).view(self.shape) for arc in (blank_arc, label_arc))

    def parts(self, nodes: Tensor) -> tuple[Tensor, ...]:
        return nodes.split(max(1, SCORES_AT_ONCE // len(self.weight)))

    def frame(self, nodes: Tensor) -> Tensor:
        return nodes // self.columns

    def token(self, nodes: Tensor) -> Tensor:
        return nodes // self.per_utterance * self.columns + nodes % self.columns

    def label(self, labels: Tensor, nodes: Tensor) -> Tensor:
        """labels [B, U + 1] -> [n, 1] those of the nodes."""
        return labels.flatten()[self.token(nodes)].unsqueeze(1)

    def scores(self, nodes: Tensor) -> tuple[Tensor, Tensor]:
        """[n, V] logits and [n, H] what the output layer made them of."""
        hidden = self.encoded[self.frame(nodes)].add_(self.predicted[self.token(nodes)]).tanh_()
        return torch.addmm(self.bias, hidden, self.weight.T).to(self.score_dtype), hidden
