"""Learning rates over optimizer steps. PyTorch's schedulers that take ``total_steps`` can be named in YAML too.

A schedule is a function of the step alone, so a resumed run finds it again by counting.
"""

from __future__ import annotations

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from src.utils.build import Count, Share, check


def warmup_cosine(
    optimizer: Optimizer, total_steps: int, warmup: float = 0.1, final_ratio: float = 0.01
) -> LambdaLR:
    """Linear warm-up over the share ``warmup`` of all steps, then half a cosine down to ``final_ratio`` of the peak."""
    check("lr_scheduler.warmup", warmup, Share)
    check("lr_scheduler.final_ratio", final_ratio, Share)
    warmup_steps = max(1, round(total_steps * warmup))

    def factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / warmup_steps
        progress = min(1.0, (step - warmup_steps) / max(1, total_steps - warmup_steps))
        return final_ratio + (1 - final_ratio) * 0.5 * (1 + math.cos(math.pi * progress))

    return LambdaLR(optimizer, factor)


def noam(optimizer: Optimizer, total_steps: int, warmup_steps: int = 10_000) -> LambdaLR:
    """The transformer schedule (Vaswani et al. 2017, eq. 3), scaled so that the optimizer's lr is the peak.

    ``total_steps`` is not needed: the rate falls with the inverse square root of the step.
    """
    check("lr_scheduler.warmup_steps", warmup_steps, Count)

    def factor(step: int) -> float:
        return min((step + 1) / warmup_steps, math.sqrt(warmup_steps / (step + 1)))

    return LambdaLR(optimizer, factor)
