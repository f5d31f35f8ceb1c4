"""CTC greedy search: the most probable alignment."""

from __future__ import annotations

from torch import Tensor

from src.decoding.hypothesis import Hypothesis
from src.decoding.settings import NEVER, require_blank, require_blank_in_vocabulary


class CTCGreedySearch:
    """The best token of every frame, repeats collapsed, blanks removed. The score is that alignment's.

    Example:
        >>> import torch
        >>> log_probs = torch.tensor([[[0.1, 0.8, 0.1], [0.1, 0.8, 0.1], [0.6, 0.2, 0.2], [0.1, 0.9, 0.0]]]).log()
        >>> CTCGreedySearch()(log_probs, torch.tensor([4]))[0][0].tokens
        [1, 1]
    """

    def __init__(self, blank: int = 0) -> None:
        require_blank(blank)
        self.blank = blank

    def __call__(self, log_probs: Tensor, lengths: Tensor) -> list[list[Hypothesis]]:
        """log_probs [B, T, V] (natural log), lengths [B] -> per utterance a list of one hypothesis."""
        require_blank_in_vocabulary(self.blank, log_probs)
        log_probs = log_probs.float().masked_fill(
            log_probs.isnan(), NEVER
        )  # what is no number is no probability
        best, tokens = log_probs.max(-1)  # [B, T]
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
                        token_log_probs=values[times].tolist(),
                    )
                ]
            )
        return results
