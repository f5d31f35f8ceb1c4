"""When the tokens of a text were said, by the CTC layer of the model that wrote it."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from src.decoding.hypothesis import Hypothesis
from src.model.ctc_alignment import ctc_alignment


def take_times_from_ctc(found: list[list[Hypothesis]], log_probs: Tensor | None, lengths: Tensor) -> None:
    """Sets ``token_times`` to the frames in which CTC's best alignment of each text begins its tokens.

    An attention model looks where it likes; CTC has to go through the clip in order.

    Args:
        found: per utterance its hypotheses; a text that has no alignment keeps its times.
        log_probs, lengths: [B, T, V] of the CTC layer and [B]; None: there is no such layer, and nothing happens.
    """
    if log_probs is None:
        return
    rows = [(row, hypothesis) for row, hypotheses in enumerate(found) for hypothesis in hypotheses]
    rows = [(row, hypothesis) for row, hypothesis in rows if hypothesis.tokens]
    if not rows:
        return
    device = log_probs.device
    which = torch.tensor([row for row, _ in rows], device=device)
    tokens = pad_sequence([torch.tensor(hypothesis.tokens) for _, hypothesis in rows], batch_first=True)
    counts = torch.tensor([len(hypothesis.tokens) for _, hypothesis in rows])
    positions = ctc_alignment(log_probs[which], lengths[which], tokens.to(device), counts.to(device))
    belongs = positions[:, None] == torch.arange(tokens.size(1), device=device)[:, None]  # [N, U, T]
    first, is_there = belongs.byte().argmax(2).tolist(), belongs.any(2).tolist()
    for (_, hypothesis), times, there in zip(rows, first, is_there, strict=True):
        count = len(hypothesis.tokens)
        if all(there[:count]):
            hypothesis.token_times = times[:count]
