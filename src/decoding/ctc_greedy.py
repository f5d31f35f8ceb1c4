"""CTC greedy search: the most probable alignment."""

from __future__ import annotations

import torch
from torch import Tensor

from src.decoding.hypothesis import Hypothesis
from src.decoding.settings import require_blank, require_blank_in_vocabulary, require_lengths, without_nan


class CTCGreedySearch:
    """The best token of every frame, repeats collapsed, blanks removed. The score is that alignment's.

    Example:
        >>> log_probs = torch.tensor([[[0.1, 0.8, 0.1], [0.1, 0.8, 0.1], [0.6, 0.2, 0.2], [0.1, 0.9, 0.0]]]).log()
        >>> CTCGreedySearch()(log_probs, torch.tensor([4]))[0][0].tokens
        [1, 1]
    """

    def __init__(self, blank: int = 0) -> None:
        require_blank(blank)
        self.blank = blank

    @torch.inference_mode()
    def __call__(self, log_probs: Tensor, lengths: Tensor) -> list[list[Hypothesis]]:
        """log_probs [B, T, V] (natural log), lengths [B] -> per utterance a list of one hypothesis."""
        require_blank_in_vocabulary(self.blank, log_probs)
        require_lengths(lengths, log_probs.size(1))
        best, tokens = without_nan(log_probs).max(-1)  # [B, T]
        starts = tokens != self.blank
        starts[:, 1:] &= tokens[:, 1:] != tokens[:, :-1]
        results = []
        for values, path, start, length in zip(
            best.cpu(), tokens.cpu(), starts.cpu(), lengths.tolist(), strict=True
        ):
            times = start[:length].nonzero().flatten()
            score = float(values[:length].double().sum())
            results.append(
                [
                    Hypothesis(
                        tokens=path[times].tolist(),
                        score=score,
                        parts={"acoustic": score},
                        token_times=times.tolist(),
                        token_log_probs=values[times].float().tolist(),
                    )
                ]
            )
        return results
