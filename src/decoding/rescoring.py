"""A second opinion on the n-best list of a search."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from src.decoding.fusion import Fusion
from src.decoding.hypothesis import Hypothesis
from src.decoding.scorer import Scorer
from src.decoding.settings import require


class NBestRescoring:
    """Adds scorers that are too slow for every frame to the scores of what another search found, and sorts anew.

    Args:
        search: finds the hypotheses.
        scorers: pairs (``Scorer``, weight), as the beam searches take them.

    Raises ``UserError`` for a search or scorers that are none.

    Example:
        >>> from src.decoding import CTCBeamSearch, LengthBonus
        >>> log_probs = torch.tensor([[[0.6, 0.4], [0.9, 0.1]]]).log()
        >>> search = NBestRescoring(CTCBeamSearch(4), [(LengthBonus(2), 1.0)])
        >>> [hypothesis.tokens for hypothesis in search(log_probs, torch.tensor([2]))[0]]
        [[1], []]
    """

    def __init__(self, search: Any, scorers: Sequence[tuple[Scorer, float]]) -> None:
        fits = callable(search) and not isinstance(search, NBestRescoring)
        require(fits, "search", search, "a search that does not rescore itself; give this one all scorers")
        self.search, self.fusion = search, Fusion(scorers)

    def __call__(self, *inputs: Any) -> list[list[Hypothesis]]:
        """What the search takes -> per utterance its hypotheses, best first by the new score."""
        found = self.search(*inputs)
        flat = [hypothesis for hypotheses in found for hypothesis in hypotheses]
        if not flat:
            return found
        device = next((value.device for value in inputs if isinstance(value, Tensor)), torch.device("cpu"))
        points = self._points([hypothesis.tokens for hypothesis in flat], device)
        for hypothesis, more in zip(flat, points, strict=True):
            hypothesis.score += more
            hypothesis.parts["rescoring"] = more
        return [sorted(hypotheses, key=lambda hypothesis: -hypothesis.score) for hypotheses in found]

    @torch.inference_mode()
    def _points(self, texts: list[list[int]], device: torch.device) -> list[float]:
        """Weighted scores of whole texts, all of them at once, token by token."""
        rows = pad_sequence([torch.tensor([*text, -1]) for text in texts], batch_first=True, padding_value=-1)
        rows = rows.to(device)
        same = torch.zeros(len(texts), 1, dtype=torch.long, device=device)
        total = torch.zeros(len(texts), 1, dtype=torch.float64, device=device)
        needed = int(rows.max()) + 1
        states = self.fusion.start(len(texts), 1, device)
        for tokens in rows.split(1, dim=1):
            for (scorer, weight), state in zip(self.fusion.scorers, states, strict=True):
                points = scorer.score(state)
                V = points.size(2)
                require(
                    V >= needed, f"{type(scorer).__name__}'s vocabulary", V, f"the model's, at least {needed}"
                )
                points = points.gather(2, tokens.clamp_min(0).unsqueeze(2)).squeeze(2)
                total += weight * torch.where(tokens >= 0, points, 0.0)
            states = self.fusion.advance(states, same, tokens)
        return (total + self.fusion.finish(states)).squeeze(1).tolist()
