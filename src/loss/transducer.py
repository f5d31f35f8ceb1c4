"""The transducer loss (Graves, arXiv 1211.3711): exact, with the gradient of the occupation posteriors.

The gradient of -log P by a node's logits is its occupation times their softmax, minus the posteriors of its two
arcs (section 2.5): nothing differentiates the recursion, and nothing but the arcs is kept of it.

The logits [B, T, U + 1, V] are by far the largest tensor of a training; ``fused_transducer.py`` never has them all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from src.loss.lattice import transducer_arcs
from src.utils.masks import valid_positions

REDUCTIONS = {"none": lambda x: x, "sum": Tensor.sum, "mean": Tensor.mean}


def transducer_loss(
    logits: Tensor,
    targets: Tensor,
    logit_lengths: Tensor,
    target_lengths: Tensor,
    blank: int = 0,
    clamp: float = -1,
    reduction: str = "mean",
    fused_log_softmax: bool = True,
) -> Tensor:
    """-log P(targets) over all alignments, natural log.

    As ``torchaudio.functional.rnnt_loss``, but the blank is token 0 unless said otherwise, not the last one; lengths
    and targets may be of any integer type; logits of float64 stay that; an utterance without a frame costs infinity.

    Args:
        logits: [B, T, U + 1, V], of the joiner; they need not be normalised.
        targets: [B, U] token ids without blanks.
        logit_lengths, target_lengths: [B] frames and tokens of each utterance.
        blank: its token id; -1: the last one.
        clamp: where above 0, each utterance's loss has a gradient within +-clamp by each logit.
        reduction: "none" ([B]), "sum" or "mean" over utterances.
        fused_log_softmax: False: logits are log probabilities already, and gradients are by these.

    Raises ``ValueError`` for sizes that do not fit each other, lengths beyond them (asked on a CPU only: a GPU would
    have to be waited for), or another reduction.

    Example:
        >>> logits = torch.zeros(1, 2, 2, 4, requires_grad=True)  # two paths of three arcs, each with P = 1 / 4
        >>> loss = transducer_loss(logits, torch.tensor([[2]]), torch.tensor([2]), torch.tensor([1]))
        >>> round(loss.exp().item(), 3)
        32.0
    """
    reduced = reduction_of(reduction)
    lengths = checked_lengths(logits.shape[:3], targets, logit_lengths, target_lengths)
    losses = _TransducerLoss.apply(logits, targets, *lengths, blank, clamp, fused_log_softmax)
    return reduced(losses)


class _TransducerLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        targets: Tensor,
        frames: Tensor,
        tokens: Tensor,
        blank: int,
        clamp: float,
        normalizes: bool,
    ) -> Tensor:
        labels = arc_labels(targets, tokens)
        ctx.blank, ctx.clamp, ctx.normalizes = blank, clamp, normalizes
        ctx.dtype = torch.promote_types(logits.dtype, torch.float32)
        log_probs = logits.log_softmax(-1, ctx.dtype) if normalizes else logits.to(ctx.dtype)
        label = log_probs.gather(3, _columns(labels, log_probs)).squeeze(3)
        arcs = transducer_arcs(log_probs[..., blank], label, frames, tokens)
        ctx.save_for_backward(logits, labels, arcs.blank, arcs.label)
        return -arcs.log_likelihood.to(ctx.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        logits, labels, *posteriors = ctx.saved_tensors
        gradient = gradient[:, None, None]
        blank, label = (part.to(ctx.dtype) * gradient for part in posteriors)
        if ctx.normalizes:
            occupied = (blank + label).unsqueeze(3)
            result = logits.softmax(-1, ctx.dtype).mul_(occupied)
            result.masked_fill_(occupied == 0, 0.0)  # whatever stands in padding, infinities too
        else:
            result = torch.zeros_like(logits, dtype=ctx.dtype)
        result[..., ctx.blank] -= blank
        result.scatter_add_(3, _columns(labels, result), -label.unsqueeze(3))
        if ctx.clamp > 0:
            most = ctx.clamp * gradient.abs().unsqueeze(3)
            result.clamp_(-most, most)
        return result.to(logits.dtype), *[None] * 6


def reduction_of(name: str) -> Callable[[Tensor], Tensor]:
    """losses [B] -> what the name says. Raises ``ValueError`` for another name."""
    if name not in REDUCTIONS:
        raise ValueError(f"reduction={name!r} must be one of: {', '.join(REDUCTIONS)}")
    return REDUCTIONS[name]


def checked_lengths(
    nodes: tuple[int, ...], targets: Tensor, frames: Tensor, tokens: Tensor
) -> tuple[Tensor, Tensor]:
    """frames and tokens [B] as int64, for nodes [B, T, U + 1]. Raises ``ValueError`` for what does not fit."""
    B, T, columns = nodes
    U = columns - 1
    if targets.shape[1:] != (U,):
        raise ValueError(
            f"{columns} label positions do not fit targets of {tuple(targets.shape)}; one more is needed"
        )
    if not len(targets) == len(frames) == len(tokens) == B:
        sizes = f"{len(targets)} targets, {len(frames)} and {len(tokens)} lengths"
        raise ValueError(f"{sizes} do not fit {B} utterances")
    for name, lengths, most in (("frames", frames, T), ("tokens", tokens, U)):
        if lengths.device.type == "cpu" and not ((lengths >= 0) & (lengths <= most)).all():
            raise ValueError(
                f"{name}={lengths.tolist()} must be from 0 to {most}, as many as the tensors hold"
            )
    return frames.long(), tokens.long()


def arc_labels(targets: Tensor, tokens: Tensor) -> Tensor:
    """targets [B, U], tokens [B] -> [B, U + 1]: the token that each node's label arc is for; 0 where there is none."""
    return F.pad(targets.long().masked_fill(~valid_positions(tokens, targets.size(1)), 0), (0, 1))


def _columns(labels: Tensor, values: Tensor) -> Tensor:
    """labels [B, U + 1] -> [B, T, U + 1, 1], where those of each node stand in values [B, T, U + 1, V]."""
    return labels[:, None, :, None].expand(-1, values.size(1), -1, -1)
