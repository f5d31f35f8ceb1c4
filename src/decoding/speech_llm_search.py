"""Searches for speech LLMs, through ``transformers``' ``generate``: greedy, beam, sampling.

None goes on for ever: a text ends where it is too long for its clip, or says the same thing again and again.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from src.decoding.attention_greedy import token_limits
from src.decoding.hypothesis import Hypothesis
from src.decoding.nucleus import nucleus_of
from src.decoding.settings import (
    NEVER,
    is_count,
    is_number,
    require,
    require_beam_size,
    require_count,
    require_lengths,
    require_tokens_per_frame,
    without_nan,
)

LONGEST_PERIOD = 20  # tokens of something that is said again and again


class PromptedModel(Protocol):
    """What the searches ask of a model."""

    writer: Any  # generate(vectors, real, **settings) -> tokens
    end: int  # the token that ends an answer
    vocab_size: int  # of the tokenizer; the writer may know more tokens, which stand for nothing

    def prompt(self, projected: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """projected [B, P, H], lengths [B] -> vectors [B, L, H], padded on the left, and which are real [B, L]."""

    def answer_log_probs(
        self, projected: Tensor, lengths: Tensor, tokens: Tensor, token_lengths: Tensor
    ) -> dict[str, Tensor]:
        """Of tokens [B, U] and their ends: ``answer_log_probs`` [B, U + 1]."""


def repeats(written: Tensor, times: int) -> Tensor:
    """Which texts [N, u] end in the same 1 to 20 tokens so many times in a row, [N]."""
    N, u = written.shape
    found = torch.zeros(N, dtype=torch.bool, device=written.device)
    for period in range(1, min(LONGEST_PERIOD, u // times) + 1):
        tail = written[:, -period * times :].view(N, times, period)
        found |= (tail == tail[:, :1]).flatten(1).all(1)
    return found


def said_once(tokens: list[int], times: int) -> list[int]:
    """The tokens, of whose end only the first is left where it was said so many times.

    >>> said_once([7, 1, 2, 1, 2, 1, 2], times=3)
    [7, 1, 2]
    """
    for period in range(1, min(LONGEST_PERIOD, len(tokens) // times) + 1):
        if tokens[-period * times :] == tokens[-period:] * times:
            return tokens[: len(tokens) - period * (times - 1)]
    return tokens


def log_probs_of(
    model: PromptedModel, projected: Tensor, lengths: Tensor, texts: list[list[int]]
) -> list[list[float]]:
    """projected [N, P, H], lengths [N], N texts -> the log probabilities of each one's tokens and of its end."""
    counts = torch.tensor([len(text) for text in texts], device=projected.device)
    tokens = pad_sequence([torch.tensor(text, dtype=torch.long) for text in texts], batch_first=True)
    found = model.answer_log_probs(projected, lengths, tokens.to(projected.device), counts)
    rows = without_nan(found["answer_log_probs"]).tolist()
    return [row[: len(text) + 1] for row, text in zip(rows, texts, strict=True)]


def best_first(found: list[Hypothesis]) -> list[Hypothesis]:
    """By score; those that are impossible are left out, if there are others."""
    found = sorted(found, key=lambda hypothesis: -hypothesis.score)
    return [hypothesis for hypothesis in found if hypothesis.score > NEVER] or found[:1]


class Guard:
    """A logits processor: lets nothing be written that the tokenizer does not know, makes texts end that are too long
    or go round in circles, and notes what was chosen.

    Args:
        model: says what ends a text, and how many tokens there are.
        limits: how many tokens each text may have [N].
        times: how often in a row the same may be said.
    """

    def __init__(self, model: PromptedModel, limits: Tensor, times: int) -> None:
        self.end, self.vocab_size = model.end, model.vocab_size
        self.limits, self.times = limits, times
        self.chosen: list[Tensor] = []  # log probabilities [N] of the best tokens, step by step

    def __call__(self, written: Tensor, scores: Tensor) -> Tensor:
        """written [N, u], scores [N, V] of the next token -> log_probs [N, V] of those that may be."""
        log_probs = without_nan(scores.float().log_softmax(-1))
        log_probs[:, self.vocab_size :] = NEVER
        wanted = self.preferred(log_probs, written.size(1))
        over = (written.size(1) >= self.limits) | repeats(written, self.times)
        wanted = wanted.masked_fill(over[:, None], NEVER)
        wanted[:, self.end] = wanted[:, self.end].masked_fill(over, 0.0)
        self.chosen.append(log_probs.gather(1, wanted.argmax(1, keepdim=True)).squeeze(1))
        return wanted

    def preferred(self, log_probs: Tensor, step: int) -> Tensor:
        """log_probs [N, V] -> scores whose largest is chosen."""
        return log_probs


class SpeechLLMGreedySearch:
    """At each step the most probable token, until that is the end.

    Args:
        max_tokens_per_frame: a text ends at the latest after so many tokens for each projected frame.
        max_repeats: and where its last words were said so many times in a row; they are kept once.

    Raises ``UserError`` for a setting that is out of its range.
    """

    def __init__(self, max_tokens_per_frame: float = 2.0, max_repeats: int = 10) -> None:
        require_tokens_per_frame(max_tokens_per_frame)
        require(is_count(max_repeats, 2), "max_repeats", max_repeats, "a whole number of at least 2")
        self.max_tokens_per_frame, self.max_repeats = max_tokens_per_frame, max_repeats

    @torch.inference_mode()
    def __call__(
        self, model: PromptedModel, projected: Tensor, projected_lengths: Tensor
    ) -> list[list[Hypothesis]]:
        """projected [B, P, H], projected_lengths [B] -> per utterance a list of hypotheses, best first."""
        require_lengths(projected_lengths, projected.size(1))
        return self.search(model, projected, projected_lengths) if len(projected) else []

    def search(self, model: PromptedModel, projected: Tensor, lengths: Tensor) -> list[list[Hypothesis]]:
        guard = Guard(model, self.limits(lengths), self.max_repeats)
        return [[hypothesis] for hypothesis in self.written(model, projected, lengths, guard)]

    def limits(self, lengths: Tensor) -> Tensor:
        return token_limits(lengths, self.max_tokens_per_frame)

    def written(
        self, model: PromptedModel, projected: Tensor, lengths: Tensor, guard: Guard
    ) -> list[Hypothesis]:
        """What the guard's choices make, a text for each row."""
        rows = self.texts(model, self.generated(model, projected, lengths, guard))
        texts = [said_once(row, self.max_repeats) for row in rows]
        chosen = torch.stack(guard.chosen, 1).tolist()
        values = [log_probs[: len(row) + 1] for log_probs, row in zip(chosen, rows, strict=True)]
        if cut := [n for n, row in enumerate(rows) if len(texts[n]) < len(row)]:  # they end elsewhere now
            again = log_probs_of(model, projected[cut], lengths[cut], [texts[n] for n in cut])
            for n, log_probs in zip(cut, again, strict=True):
                values[n] = log_probs
        return [
            Hypothesis(text, sum(log_probs), {"acoustic": sum(log_probs)}, [], log_probs[:-1])
            for text, log_probs in zip(texts, values, strict=True)
        ]

    def generated(
        self, model: PromptedModel, projected: Tensor, lengths: Tensor, guard: Guard, **settings: Any
    ) -> Tensor:
        """New tokens [N, U], each row with an end."""
        return model.writer.generate(
            *model.prompt(projected, lengths),
            max_new_tokens=int(guard.limits.max()) + 1,
            do_sample=False,
            eos_token_id=model.end,
            pad_token_id=model.end,
            logits_processor=[guard],
            **settings,
        )

    def texts(self, model: PromptedModel, tokens: Tensor) -> list[list[int]]:
        """tokens [N, U] -> each row's up to its first end."""
        rows = [[*row, model.end] for row in tokens.tolist()]
        return [row[: row.index(model.end)] for row in rows]


class SpeechLLMBeamSearch(SpeechLLMGreedySearch):
    """The beam search of ``transformers``; what it finds is scored once more, text by text.

    Args:
        beam_size: K.
        length_penalty: log P of a text and its end is divided by their number to this power; 0: not at all.
        max_tokens_per_frame, max_repeats: as of ``SpeechLLMGreedySearch``.

    Raises ``UserError`` for a setting that is out of its range.
    """

    def __init__(
        self,
        beam_size: int = 4,
        length_penalty: float = 1.0,
        max_tokens_per_frame: float = 2.0,
        max_repeats: int = 10,
    ) -> None:
        super().__init__(max_tokens_per_frame, max_repeats)
        require_beam_size(beam_size)
        fits = is_number(length_penalty) and abs(length_penalty) <= 5  # powers of lengths stay finite
        require(fits, "length_penalty", length_penalty, "a number from -5 to 5")
        self.beam_size, self.length_penalty = beam_size, length_penalty

    def search(self, model: PromptedModel, projected: Tensor, lengths: Tensor) -> list[list[Hypothesis]]:
        if self.beam_size == 1:
            return super().search(model, projected, lengths)
        K = self.beam_size
        guard = Guard(model, self.limits(lengths).repeat_interleave(K), self.max_repeats)
        tokens = self.generated(
            model,
            projected,
            lengths,
            guard,
            num_beams=K,
            num_return_sequences=K,
            length_penalty=self.length_penalty,
        )
        rows = self.texts(model, tokens)
        return [
            self.scored(model, projected[b : b + 1], lengths[b : b + 1], rows[b * K : b * K + K])
            for b in range(len(projected))
        ]

    def scored(
        self, model: PromptedModel, projected: Tensor, lengths: Tensor, texts: list[list[int]]
    ) -> list[Hypothesis]:
        """The different ones of an utterance's texts (projected [1, P, H]), best first."""
        texts = [
            list(text) for text in dict.fromkeys(tuple(said_once(text, self.max_repeats)) for text in texts)
        ]
        n = len(texts)
        log_probs = log_probs_of(model, projected.expand(n, -1, -1), lengths.expand(n), texts)
        found = []
        for text, values in zip(texts, log_probs, strict=True):
            acoustic = sum(values)
            score = acoustic / (len(text) + 1) ** self.length_penalty
            parts = {"acoustic": acoustic, "ranking": score - acoustic}
            found.append(Hypothesis(text, score, parts, [], values[:-1]))
        return best_first(found)


class SpeechLLMSamplingSearch(SpeechLLMGreedySearch):
    """Texts drawn at random, best first; nucleus sampling (Holtzman et al., arXiv 1904.09751).

    Tokens are drawn by adding Gumbel noise to log probabilities and taking the largest sum. The noise depends on the
    seed, the sample and the step alone, so that a clip's texts are the same in any batch.

    Args:
        samples: texts drawn for each utterance; the different ones of them are returned.
        temperature: log probabilities are divided by it.
        top_p: of the most probable tokens that make up this share, the first one always.
        seed: addresses the random numbers.
        max_tokens_per_frame, max_repeats: as of ``SpeechLLMGreedySearch``.

    Raises ``UserError`` for a setting that is out of its range.
    """

    def __init__(
        self,
        samples: int = 8,
        temperature: float = 1.0,
        top_p: float = 0.9,
        seed: int = 0,
        max_tokens_per_frame: float = 2.0,
        max_repeats: int = 10,
    ) -> None:
        super().__init__(max_tokens_per_frame, max_repeats)
        require_count("samples", samples)
        require(is_number(temperature) and temperature > 0, "temperature", temperature, "a number above 0")
        require(is_number(top_p) and 0 < top_p <= 1, "top_p", top_p, "a number above 0, up to 1")
        require(is_count(seed, 0) and seed < 1 << 40, "seed", seed, "a whole number from 0 to below 2**40")
        self.samples, self.temperature, self.top_p, self.seed = samples, temperature, top_p, seed

    def search(self, model: PromptedModel, projected: Tensor, lengths: Tensor) -> list[list[Hypothesis]]:
        S = self.samples
        projected, lengths = projected.repeat_interleave(S, 0), lengths.repeat_interleave(S)
        found = self.written(model, projected, lengths, _Draws(model, self.limits(lengths), self))
        different = [
            {tuple(hypothesis.tokens): hypothesis for hypothesis in found[start : start + S]}
            for start in range(0, len(found), S)
        ]
        return [best_first(list(texts.values())) for texts in different]


class _Draws(Guard):
    """Chooses at random, as ``SpeechLLMSamplingSearch`` says."""

    def __init__(self, model: PromptedModel, limits: Tensor, search: SpeechLLMSamplingSearch) -> None:
        super().__init__(model, limits, search.max_repeats)
        self.settings = search

    def preferred(self, log_probs: Tensor, step: int) -> Tensor:
        nucleus = nucleus_of(log_probs.double(), self.settings.temperature, self.settings.top_p)
        generator = torch.Generator(log_probs.device).manual_seed((self.settings.seed << 20) + step)
        S, V = self.settings.samples, log_probs.size(1)
        uniform = torch.rand(S, V, generator=generator, device=log_probs.device).clamp_min(1e-20)
        noise = -(-uniform.log()).clamp_min(1e-20).log()
        return nucleus.log() + noise.repeat(len(nucleus) // S, 1)
