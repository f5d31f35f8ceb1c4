"""Back-pointers of a beam search, and the hypotheses that they spell."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from src.decoding.hypothesis import Hypothesis, nothing_possible
from src.decoding.settings import NEVER

LOG_2 = math.log(2)


class Pointers(NamedTuple):
    """What steps leave for the history, [..., B, K] each: how the new prefixes came about, and what merged."""

    parents: Tensor  # the slot every prefix was in
    tokens: Tensor  # its new token; -1: none
    # For the slots as they were:
    merged_from: Tensor  # the slot of the prefix without its last token
    last: Tensor  # that last token
    arriving: Tensor  # the mass that came from there
    staying: Tensor  # the mass of the prefix with it

    def followed(self) -> tuple[Tensor, Tensor]:
        """Parents and tokens along the larger mass, so that a token's time is the frame that made it probable."""
        mostly_merged = self.arriving > self.staying - LOG_2
        reborn = mostly_merged.gather(-1, self.parents) & (self.tokens < 0)
        tokens = torch.where(reborn, self.last.gather(-1, self.parents), self.tokens)
        return torch.where(reborn, self.merged_from.gather(-1, self.parents), self.parents), tokens


class History:
    """For each step the slot that every hypothesis was in before, and the token it gained, if any.

    Prefixes are never copied: a step costs memory for B * K pointers, and texts are read at the end, backwards.

    Example: two steps of one utterance with two slots; slot 0 ends as "5 7", slot 1 as "5"
        >>> import torch
        >>> history = History(batch_size=1, beam_size=2)
        >>> parents, tokens = torch.tensor([[[0, 0]], [[0, 0]]]), torch.tensor([[[5, 6]], [[7, -1]]])
        >>> history.add(parents, tokens, torch.zeros(2, 1, 2), torch.tensor([[[0]], [[1]]]))
        >>> score = torch.tensor([[-1.0, -2.0]])
        >>> [(h.tokens, h.token_times) for h in history.hypotheses(score, score, has_scorers=False)[0]]
        [([5, 7], [0, 1]), ([5], [0])]
    """

    def __init__(self, batch_size: int, beam_size: int) -> None:
        self.shape = (batch_size, beam_size)
        self.pieces: list[tuple[Tensor, ...]] = []
        self.for_all: list[tuple[Tensor, ...]] = []

    def add(self, parents: Tensor, tokens: Tensor, log_probs: Tensor, times: Tensor) -> None:
        """Some steps: parents, tokens (-1: none), their log posteriors [T, B, K], and their frames [T, B, K or 1].

        Along a hypothesis the frames of its tokens never fall.
        """
        self.pieces.append((parents.short(), tokens.int(), log_probs.float(), times.int()))

    def add_to_all(self, rows: Tensor, tokens: Tensor, log_probs: Tensor, times: Tensor) -> None:
        """[N] tokens that all hypotheses of utterance ``rows[n]`` gained, beside those of ``add``."""
        self.for_all.append((rows.int(), tokens.int(), log_probs.float(), times.int()))

    def hypotheses(
        self, score: Tensor, acoustic: Tensor, has_scorers: bool, ranking: Tensor | None = None
    ) -> list[list[Hypothesis]]:
        """score, its acoustic part and what it has for ranking alone [B, K] -> per utterance its possible hypotheses,
        best first; the rest of the score is the scorers'.

        Where nothing is possible that is an empty one with a score of minus infinity.
        """
        B, K = self.shape
        slots = np.arange(B * K)
        first = slots - slots % K  # of the same utterance
        emitted = [(np.empty(0, int),) * 4]
        for piece in self.pieces[::-1]:
            *steps, times = (part.cpu().numpy() for part in piece)
            parents, tokens, log_probs = (part.reshape(len(part), -1) for part in steps)
            times = np.broadcast_to(times, (len(times), B, K)).reshape(len(times), -1)
            parents, path = first + parents, np.empty(parents.shape, int)
            for t in range(len(parents) - 1, -1, -1):
                path[t], slots = slots, parents[t][slots]
            tokens = np.take_along_axis(tokens, path, 1)
            t, owners = np.nonzero(tokens >= 0)
            emitted.append(
                (owners, tokens[t, owners], log_probs[t, path[t, owners]], times[t, path[t, owners]])
            )
        for piece in self.for_all:
            rows, *others = (part.cpu().numpy() for part in piece)
            owners = (K * rows[:, None] + np.arange(K)).reshape(-1)
            emitted.append((owners, *(np.repeat(part, K) for part in others)))
        owners, tokens, log_probs, times = map(np.concatenate, zip(*reversed(emitted), strict=True))
        # By hypothesis, and for each one by time; those of one frame stay in order.
        order = np.argsort(owners.astype(np.int64) << 32 | times, kind="stable")
        ends = np.searchsorted(owners[order], np.arange(B * K + 1)).tolist()
        tokens, log_probs, times = (part[order].tolist() for part in (tokens, log_probs, times))
        best_first = score.argsort(dim=1, descending=True, stable=True).tolist()
        alone = torch.zeros_like(score) if ranking is None else ranking
        scores, acoustics, alone, fused = (
            part.tolist() for part in (score, acoustic, alone, score - acoustic - alone)
        )
        results = []
        for b in range(B):
            found = []
            for k in best_first[b]:
                if scores[b][k] == NEVER:
                    continue
                parts = {"acoustic": acoustics[b][k]}
                if has_scorers:
                    parts["scorers"] = fused[b][k]
                if ranking is not None:
                    parts["ranking"] = alone[b][k]
                mine = slice(ends[b * K + k], ends[b * K + k + 1])
                found.append(Hypothesis(tokens[mine], scores[b][k], parts, times[mine], log_probs[mine]))
            results.append(found or nothing_possible())
        return results
