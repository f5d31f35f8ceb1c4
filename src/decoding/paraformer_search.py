"""Searches over slots: the best token of each, the best texts by several judges, and texts drawn at random."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from src.decoding.fusion import Fusion
from src.decoding.history import History
from src.decoding.hypothesis import Hypothesis, nothing_possible
from src.decoding.nucleus import nucleus_of
from src.decoding.scorer import Scorer
from src.decoding.settings import (
    NEVER,
    at_least_one_frame,
    is_count,
    is_number,
    require,
    require_beam_size,
    require_count,
    require_ctc_layer,
    require_ctc_weight,
    without_nan,
)
from src.utils.masks import valid_positions


class SlotModel(Protocol):
    """What the searches ask of a model."""

    def write(self, encoded: Tensor, encoded_lengths: Tensor) -> tuple[Tensor, Any]:
        """encoded [B, T, D], encoded_lengths [B] -> log_probs [B, U, V] of each slot, and the slots, which have
        ``lengths`` [B] and ``times`` [B, U]."""

    def ctc_log_probs(self, encoded: Tensor) -> Tensor | None:
        """log_probs [B, T, V] of a CTC layer, if there is one."""


def write(model: SlotModel, encoded: Tensor, encoded_lengths: Tensor) -> tuple[Tensor, Tensor, Any]:
    """encoded [B, T, D], encoded_lengths [B] -> the same, a frame at least; log_probs [B, U, V] of each slot, where
    what is no number is no probability; and the slots."""
    encoded = at_least_one_frame(encoded, encoded_lengths)
    log_probs, slots = model.write(encoded, encoded_lengths)
    return encoded, without_nan(log_probs), slots


class ParaformerGreedySearch:
    """The best token of each slot (token 0 aside), all at once; a token's time is where its slot begins."""

    @torch.inference_mode()
    def __call__(self, model: SlotModel, encoded: Tensor, encoded_lengths: Tensor) -> list[list[Hypothesis]]:
        """encoded [B, T, D], encoded_lengths [B] -> per utterance a list of one hypothesis."""
        _, log_probs, slots = write(model, encoded, encoded_lengths)
        values, tokens = log_probs[..., 1:].max(-1)
        rows = zip(
            values.double().tolist(),
            (tokens + 1).tolist(),
            slots.times.tolist(),
            slots.lengths.tolist(),
            strict=True,
        )
        found = []
        for values, tokens, times, count in rows:
            score = sum(values[:count])
            best = Hypothesis(tokens[:count], score, {"acoustic": score}, times[:count], values[:count])
            found.append([best] if score > NEVER else nothing_possible())
        return found


class ParaformerSamplingSearch:
    """Texts drawn at random, different ones for different tastes: each slot's token from its nucleus (Holtzman et al.,
    arXiv 1904.09751), the fewest tokens that together have a probability of ``top_p``.

    Args:
        samples: texts drawn for each utterance; equal ones are listed once, so there may be fewer, best first.
        temperature: divides the logits: below 1 surer, above 1 more diverse.
        top_p: probability of the nucleus.
        seed: of the draws; each call starts with it.

    Raises ``UserError`` for a setting that is out of its range.
    """

    def __init__(self, samples: int = 8, temperature: float = 1.0, top_p: float = 0.9, seed: int = 0) -> None:
        require_count("samples", samples)
        require(is_number(temperature) and temperature > 0, "temperature", temperature, "a number above 0")
        require(is_number(top_p) and 0 < top_p <= 1, "top_p", top_p, "a probability above 0, up to 1")
        require(is_count(seed, 0) and seed < 2**63, "seed", seed, "a whole number from 0 up to 2**63 - 1")
        self.samples, self.temperature, self.top_p, self.seed = samples, temperature, top_p, seed

    @torch.inference_mode()
    def __call__(self, model: SlotModel, encoded: Tensor, encoded_lengths: Tensor) -> list[list[Hypothesis]]:
        """encoded [B, T, D], encoded_lengths [B] -> per utterance different texts, the most probable one first."""
        _, log_probs, slots = write(model, encoded, encoded_lengths)
        found = []
        for row, times, count in zip(log_probs, slots.times.tolist(), slots.lengths.tolist(), strict=True):
            row = row[:count].double().cpu()
            if (row[:, 1:].amax(1) == NEVER).any():
                found.append(nothing_possible())
                continue
            texts = {tuple(text) for text in self._drawn(row)}
            hypotheses = []
            for text in sorted(texts):
                values = row.gather(1, torch.tensor(text, dtype=torch.long)[:, None]).flatten().tolist()
                score = sum(values)
                hypotheses.append(Hypothesis([*text], score, {"acoustic": score}, times[:count], values))
            found.append(sorted(hypotheses, key=lambda hypothesis: -hypothesis.score))
        return found

    def _drawn(self, log_probs: Tensor) -> list[list[int]]:
        """log_probs [U, V] of an utterance, whose draws do not depend on its batch -> texts."""
        if not len(log_probs):
            return [[]]
        generator = torch.Generator().manual_seed(self.seed)
        nucleus = nucleus_of(log_probs[:, 1:], self.temperature, self.top_p)
        return (1 + nucleus.multinomial(self.samples, True, generator=generator)).T.tolist()


class ParaformerBeamSearch:
    """The best texts of as many tokens as there are slots, by the slots, by language models and by CTC.

    Slot by slot every text grows by each token, and the best K stay; at the end CTC says what it thinks of them. Where
    the beam prunes nothing it is exact.

    Args:
        beam_size: texts kept per utterance, K; also the length of the n-best list.
        ctc_weight: w; the acoustic score is (1 - w) log P(slots) + w log P(CTC) of the K texts that are left.
        scorers: pairs (``Scorer``, weight) added for each token and at the end.

    Raises ``UserError`` for a setting that is out of its range, or CTC of a model that has no such layer.
    """

    def __init__(
        self, beam_size: int = 8, ctc_weight: float = 0.0, scorers: Sequence[tuple[Scorer, float]] = ()
    ) -> None:
        require_beam_size(beam_size)
        require_ctc_weight(ctc_weight)
        self.beam_size, self.ctc_weight, self.fusion = beam_size, ctc_weight, Fusion(scorers)

    @torch.inference_mode()
    def __call__(self, model: SlotModel, encoded: Tensor, encoded_lengths: Tensor) -> list[list[Hypothesis]]:
        """encoded [B, T, D], encoded_lengths [B] -> per utterance at most K hypotheses, best first."""
        encoded, log_probs, slots = write(model, encoded, encoded_lengths)
        (B, U, V), K, device = log_probs.shape, self.beam_size, log_probs.device
        real = valid_positions(slots.lengths, U)
        acoustic = torch.full((B, K), NEVER, dtype=torch.float64, device=device)
        acoustic[:, 0] = 0.0
        added = torch.zeros_like(acoustic)
        states = self.fusion.start(B, K, device)
        same = torch.arange(K, device=device).expand(B, K)
        steps = []
        for u in range(U):
            here = log_probs[:, u].double()
            here[:, 0] = NEVER
            points = self.fusion.points(states, V)
            mass = (acoustic.unsqueeze(2) + here[:, None]).flatten(1)
            more = (added.unsqueeze(2) + (0 if points is None else points)).expand(-1, -1, V).flatten(1)
            pair = (mass + more).topk(K, 1).indices
            inside = real[:, u, None]
            parents = torch.where(inside, pair // V, same)
            tokens = torch.where(inside, pair % V, -1)
            acoustic = torch.where(inside, mass.gather(1, pair), acoustic)
            added = torch.where(inside, more.gather(1, pair), added)
            states = self.fusion.advance(states, parents, tokens)
            steps.append(
                (parents, tokens, log_probs[:, u].gather(1, tokens.clamp_min(0)), slots.times[:, u, None])
            )
        history = History(B, K)
        if steps:
            history.add(*(torch.stack(part) for part in zip(*steps, strict=True)))
        score = acoustic + added + self.fusion.finish(states)
        found = history.hypotheses(score, acoustic, has_scorers=bool(self.fusion.scorers))
        return self._with_ctc(model, encoded, encoded_lengths, found) if self.ctc_weight else found

    def _with_ctc(
        self, model: SlotModel, encoded: Tensor, encoded_lengths: Tensor, found: list[list[Hypothesis]]
    ) -> list[list[Hypothesis]]:
        log_probs = require_ctc_layer(model.ctc_log_probs(encoded), self.ctc_weight)
        w, log_probs, judged = self.ctc_weight, without_nan(log_probs.double()), []
        for row, length, hypotheses in zip(log_probs, encoded_lengths, found, strict=True):
            if hypotheses[0].score == NEVER:
                judged.append(hypotheses)
                continue
            texts = [
                torch.tensor(hypothesis.tokens, dtype=torch.long, device=row.device)
                for hypothesis in hypotheses
            ]
            if int(length):
                losses = F.ctc_loss(
                    row[:, None].expand(-1, len(texts), -1),
                    torch.nn.utils.rnn.pad_sequence(texts, batch_first=True),
                    length.repeat(len(texts)),
                    torch.tensor([len(text) for text in texts], device=row.device),
                    reduction="none",
                ).tolist()
            else:
                losses = [0.0 if not len(text) else -NEVER for text in texts]
            for hypothesis, loss in zip(hypotheses, losses, strict=True):
                slots_alone = hypothesis.parts["acoustic"]
                hypothesis.parts["acoustic"] = (1 - w) * slots_alone - w * loss
                hypothesis.score += hypothesis.parts["acoustic"] - slots_alone
            possible = [hypothesis for hypothesis in hypotheses if hypothesis.score > NEVER]
            judged.append(sorted(possible, key=lambda hypothesis: -hypothesis.score) or nothing_possible())
        return judged
