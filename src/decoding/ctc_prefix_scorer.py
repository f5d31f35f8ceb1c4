"""What CTC says of a text that an attention model writes: P(all continuations of a prefix), as one more scorer."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from src.decoding.settings import NEVER, without_nan
from src.utils.masks import valid_positions

LEAST = -1e6  # stands for the log of 0 in sums, which stay finite; what is below half of it is impossible


class _Prefixes(NamedTuple):
    """The state of ``CTCPrefixScorer``: log probabilities after t = 0..T frames."""

    token_end: Tensor  # [B, K, T + 1] of the prefix, ending in its last token
    blank_end: Tensor  # [B, K, T + 1] ending in blank
    last: Tensor  # [B, K] the last token; 0, the blank, where there is none
    prefix: Tensor  # [B, K] of the prefix and anything after it


class CTCPrefixScorer:
    """log P(prefix and a next token, then anything | CTC) - log P(prefix, then anything), and at the end log P(text).

    The sum over a whole text is log P(text | CTC); token 0 is the blank, and its column the end's. After Watanabe et
    al., "Hybrid CTC/Attention", IEEE JSTSP 2017, algorithm 2, for all hypotheses and tokens at once: the sum over the
    next token's frame is a matrix product, the recursion over frames a cumulative sum, in float64.

    Args:
        log_probs: [B, T, V], natural log.
        lengths: [B] frames.

    Example:
        >>> scorer = CTCPrefixScorer(torch.tensor([[[0.6, 0.4], [0.6, 0.4]]]).log(), torch.tensor([2]))
        >>> state = scorer.start(1)
        >>> scorer.score(state).exp().round(decimals=2).tolist()  # nothing: 0.6 * 0.6; a token: the rest
        [[[0.36, 0.64]]]
    """

    def __init__(self, log_probs: Tensor, lengths: Tensor) -> None:
        padding = ~valid_positions(lengths, log_probs.size(1))
        log_probs = without_nan(log_probs.double()).masked_fill(padding.unsqueeze(2), NEVER)
        log_probs[..., 0].masked_fill_(padding, 0.0)
        self.log_probs = log_probs
        self.probabilities = log_probs.exp()
        # Of all frames before, [B, T + 1, V].
        self.sums = torch.nn.functional.pad(log_probs.clamp_min(LEAST).cumsum(1), (0, 0, 1, 0))

    def to(self, device: torch.device | str) -> CTCPrefixScorer:
        """It is where its log_probs are, on the device of the search."""
        return self

    def start(self, batch_size: int) -> _Prefixes:
        """The state of one empty text for each utterance."""
        blank_end = _possible(self.sums[:, None, :, 0])
        last = torch.zeros(batch_size, 1, dtype=torch.long, device=blank_end.device)
        return _Prefixes(
            torch.full_like(blank_end, NEVER), blank_end, last, torch.zeros_like(blank_end[..., 0])
        )

    def score(self, state: _Prefixes) -> Tensor:
        """[B, K, V] float64; in column 0 that of the end."""
        total = torch.logaddexp(state.token_end, state.blank_end)
        before, end = total[..., :-1], total[..., -1]
        most = before.amax(-1, keepdim=True).clamp_min(LEAST)
        prefix = ((before - most).exp() @ self.probabilities).log() + most
        # The last token again takes a blank in between.
        at_last = self._of(self.log_probs, state.last)
        again = (state.blank_end[..., :-1] + at_last).logsumexp(-1, keepdim=True)
        prefix.scatter_(2, state.last.unsqueeze(2), again)
        prefix[..., 0] = end  # where there is no last token, that of ``again``, too
        return torch.where(state.prefix.unsqueeze(2) == NEVER, NEVER, prefix - state.prefix.unsqueeze(2))

    def advance(self, state: _Prefixes, parents: Tensor, tokens: Tensor) -> _Prefixes:
        """The state after text k became ``parents[b, k]`` followed by ``tokens[b, k]`` (-1: unchanged)."""
        where = parents.unsqueeze(2).expand(-1, -1, state.token_end.size(2))
        token_end, blank_end = state.token_end.gather(1, where), state.blank_end.gather(1, where)
        last, prefix = state.last.gather(1, parents), state.prefix.gather(1, parents)
        grows, token = tokens >= 0, tokens.clamp_min(0)
        is_doubled = (token == last).unsqueeze(2)
        before = torch.where(is_doubled, blank_end, torch.logaddexp(token_end, blank_end))[..., :-1]
        new_token_end = _carried(before, self._of(self.sums, token))
        blank_sums = self.sums[:, None, :, 0].expand_as(new_token_end)
        new_blank_end = _carried(new_token_end[..., :-1], blank_sums)
        new_prefix = (before + self._of(self.log_probs, token)).logsumexp(-1)
        keeps = ~grows.unsqueeze(2)
        return _Prefixes(
            torch.where(keeps, token_end, new_token_end),
            torch.where(keeps, blank_end, new_blank_end),
            torch.where(grows, token, last),
            torch.where(grows, new_prefix, prefix),
        )

    def finish(self, state: _Prefixes) -> Tensor:
        """[B, K]: nothing may come any more."""
        return self.score(state)[..., 0]

    @staticmethod
    def _of(values: Tensor, tokens: Tensor) -> Tensor:
        """values [B, N, V] of tokens [B, K] -> [B, K, N]."""
        return values.gather(2, tokens[:, None].expand(-1, values.size(1), -1)).transpose(1, 2)


def _carried(arriving: Tensor, sums: Tensor) -> Tensor:
    """x[t + 1] = p[t] (x[t] + arriving[t]) from x[0] = 0, in logs: arriving [..., T], sums of log p before each frame
    and after the last [..., T + 1] -> [..., T + 1]."""
    inside = sums[..., 1:] + (arriving - sums[..., :-1]).logcumsumexp(-1)
    return torch.nn.functional.pad(_possible(inside), (1, 0), value=NEVER)


def _possible(log_probs: Tensor) -> Tensor:
    """Without what took a probability of 0 on its way."""
    return log_probs.masked_fill(log_probs < LEAST / 2, NEVER)
