"""Transducer beam search on [batch, beam] tensors, with equal prefixes merged.

In most frames of a trained model a beam only takes blanks. So on a CPU every utterance goes at its own pace, from one
frame in which its beam changes to the next one: the joiner is asked for some frames ahead, and what happens in those
before the change is a few operations. Prefixes that the predictor cannot tell apart are joined once. The result is that
of going frame by frame and prefix by prefix.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from src.decoding.fusion import Fusion
from src.decoding.hypothesis import Hypothesis
from src.decoding.prefix_names import longer
from src.decoding.scorer import Scorer, is_cheap_to_ask, touched
from src.decoding.settings import (
    NEVER,
    require,
    require_beam_size,
    require_blank,
    require_blank_in_vocabulary,
    require_lengths,
    require_symbols_per_frame,
    require_threshold,
    without_nan,
)
from src.decoding.transducer_greedy import Transducer
from src.decoding.transducer_prefixes import Frames, Nothing, Prefixes, grow, history_of, next_change

FRAMES_AHEAD = 5
APART = 2**40 + 1  # between the names of utterances: the predictor's output is the same, the frames are not


class TransducerBeamSearch:
    """Beam search for transducers, batched over utterances and hypotheses.

    A beam as large as the number of prefixes is exact: a hypothesis's acoustic score is log P of all its alignments
    with at most ``max_symbols_per_frame`` tokens in a frame. With one hypothesis it makes the greedy search's choices.

    Args:
        beam_size: prefixes kept per utterance, K; also the length of the n-best list.
        max_symbols_per_frame: S.
        blank: the blank's token id.
        scorers: pairs (``Scorer``, weight) added to the acoustic score of each token and at the end.
        beam_threshold: drop hypotheses whose score is lower than the best one's by more than this (natural log). In
            most frames of a trained model no hypothesis then grows, and the predictor has nothing to do.

    Raises ``UserError`` for a setting that is out of its range.
    """

    def __init__(
        self,
        beam_size: int = 4,
        max_symbols_per_frame: int = 1,
        blank: int = 0,
        scorers: Sequence[tuple[Scorer, float]] = (),
        beam_threshold: float | None = None,
    ) -> None:
        require_beam_size(beam_size)
        require_threshold("beam_threshold", beam_threshold)
        require_symbols_per_frame(max_symbols_per_frame)
        require_blank(blank)
        self.beam_size, self.max_symbols_per_frame, self.blank = beam_size, max_symbols_per_frame, blank
        self.fusion, self.beam_threshold = Fusion(scorers), beam_threshold
        require(not self.fusion.scorers or blank == 0, "blank", blank, "0, which scorers take for no token")

    @torch.inference_mode()
    def __call__(
        self, model: Transducer, joint_encoded: Tensor, encoded_lengths: Tensor
    ) -> list[list[Hypothesis]]:
        """joint_encoded [B, T, H], encoded_lengths [B] -> per utterance at most K hypotheses, best first."""
        B, T, _ = joint_encoded.shape
        K, S, device = self.beam_size, self.max_symbols_per_frame, joint_encoded.device
        require_lengths(encoded_lengths, T)
        prefixes = Prefixes.empty(B, K, self.blank, device)
        nothing = Nothing(prefixes, self.blank)
        texts = _Texts(model, B, K)
        states = self.fusion.start(B, K, device)
        audio = _Audio(
            joint_encoded, encoded_lengths, FRAMES_AHEAD if S == 1 and is_cheap_to_ask(device) else 1
        )
        grew, steps, times = None, [], []
        for _ in range(T):
            if audio.is_over:
                break
            for symbol in range(S):
                frames = self._frames(audio, texts, prefixes, nothing)
                fusion = self.fusion.points(states, frames.tokens.size(2))
                if symbol == 0:
                    prefixes = prefixes.left_by(frames.blank_before, grew)
                    offset, active = next_change(prefixes, frames, fusion, self.beam_threshold)
                    frame = frames.at(offset)
                    left = active + frame.blank
                else:
                    frame = frames.at(offset)
                    left = prefixes.left_by(frame.blank, grew).total
                prefixes, active, step = grow(
                    prefixes, active, left, frame, fusion, nothing, self.beam_threshold
                )
                steps.append(step)
                times.append(audio.position + offset)
                parents, tokens = step.pointers.parents, step.pointers.tokens
                grew = tokens >= 0
                texts.advance(prefixes, parents, tokens, grew, times[-1] >= encoded_lengths)
                states = self.fusion.advance(states, parents, tokens)
                if S > 1 and is_cheap_to_ask(device) and not (active > NEVER).any():
                    break
            audio.move(times[-1] + 1)
        if steps:
            prefixes = prefixes.left_by(self._frames(audio, texts, prefixes, nothing).blank_before, grew)
        rank, total = prefixes.total + prefixes.fused, prefixes.total
        if (
            self.beam_threshold is not None
        ):  # as one more frame would, such as those beside a longer utterance
            limit = rank.amax(1, keepdim=True) - self.beam_threshold
            total = total.masked_fill(rank < limit, NEVER)
        score = total + prefixes.fused + self.fusion.finish(states)
        history = history_of(B, K, steps, times)
        return history.hypotheses(score, total, has_scorers=bool(self.fusion.scorers))

    def _frames(self, audio: _Audio, texts: _Texts, prefixes: Prefixes, nothing: Nothing) -> Frames:
        """What may happen in the next frames; beyond an utterance's end that is a sure blank."""
        log_probs = without_nan(texts.model.joint(audio.look(texts.rows), texts.predicted.unsqueeze(1)))
        require_blank_in_vocabulary(self.blank, log_probs)
        blank = log_probs[..., self.blank].double()
        log_probs[..., self.blank] = NEVER
        ended = audio.ended(texts.rows)
        if ended is not None:
            blank = blank.masked_fill_(ended, 0.0)
            log_probs.masked_fill_(ended.unsqueeze(2), NEVER)
        return Frames(log_probs, blank, texts.of, prefixes, nothing)


class _Audio:
    """joint_encoded [B, T, H], and at which frame every utterance is."""

    def __init__(self, joint_encoded: Tensor, lengths: Tensor, frames_ahead: int) -> None:
        self.flat, self.lengths = joint_encoded.flatten(0, 1), lengths
        B, T, _ = joint_encoded.shape
        device = joint_encoded.device
        self.position = torch.zeros(B, dtype=torch.long, device=device)
        self.first = T * torch.arange(B, device=device)
        self.around, self.ahead = torch.arange(-1, frames_ahead, device=device), frames_ahead
        # Whether all utterances are known to be over, and none to be so within the next W frames.
        self.is_over = self.is_inside = False
        self.move(self.position)

    def look(self, rows: Tensor) -> Tensor:
        """The frame before and the next ones of some utterances [N], [N, 1 + W, H]; any where there is none."""
        places = (self.position + self.first).index_select(0, rows)[:, None] + self.around
        places = places.clamp_(0, len(self.flat) - 1)
        return self.flat.index_select(0, places.flatten()).view(*places.shape, -1)

    def move(self, position: Tensor) -> None:
        """Every utterance to a frame [B]."""
        self.position, self.left = position, self.lengths - position  # [B] frames that are left
        if is_cheap_to_ask(position.device):
            left = self.left.tolist()
            self.is_over, self.is_inside = max(left, default=0) <= 0, min(left, default=0) >= self.ahead

    def ended(self, rows: Tensor) -> Tensor | None:
        """Which of the frames of ``look`` [N, 1 + W] are beyond the end; None: none is."""
        if self.is_inside:
            return None
        return self.around >= self.left.index_select(0, rows)[:, None]


class _Texts:
    """What the predictor makes of the prefixes: N texts.

    On a CPU, prefixes of an utterance that the predictor cannot tell apart share one, as those do whose last tokens
    are the same where it sees no others; and those that are out of the search need none of their own.
    """

    def __init__(self, model: Transducer, batch_size: int, beam_size: int) -> None:
        self.model, self.shape = model, (batch_size, beam_size)
        state = model.predictor.begin(batch_size * beam_size)
        self.slots = torch.arange(batch_size * beam_size, device=state[0].device)
        self.utterance = self.slots // beam_size  # [B * K] of each slot
        self.first = self.utterance * beam_size  # [B * K] slot of its utterance
        begin = torch.zeros_like(self.slots)
        self.predicted, self.state = model.predict(begin, state)  # [N, H]; [N, ...] each
        self.of = self.slots  # [B * K] text of each slot
        self.rows = self.utterance  # [N] utterance of each text
        self.names = APART * self.utterance  # [B * K] of what the predictor knows of each slot's prefix
        # A state of whole numbers is what it has seen; with one of real numbers no two prefixes are alike.
        self.knows_all = any(part.is_floating_point() for part in state)

    def advance(
        self, prefixes: Prefixes, parents: Tensor, tokens: Tensor, grew: Tensor, over: Tensor
    ) -> None:
        """The prefixes now are those at ``parents`` [B, K] of before, and ``tokens`` after them where they ``grew``.

        over: [B] which utterances had ended before.
        """
        slots, tokens = parents.flatten() + self.first, tokens.flatten()
        is_cheap = is_cheap_to_ask(tokens.device)
        before = self.of.index_select(0, slots)
        if is_cheap:
            self.names = self._names(prefixes, slots, before, tokens, grew.flatten())
            texts = self._choose(((prefixes.total == NEVER) | over[:, None]).flatten())
            before, tokens = before.index_select(0, texts), tokens.index_select(0, texts)
            self.rows = self.utterance.index_select(0, texts)
        self.predicted = self.predicted.index_select(0, before)
        self.state = tuple(part.index_select(0, before) for part in self.state)
        at = touched(tokens)
        if len(at):
            token = tokens.index_select(0, at)
            old = self.predicted, *self.state
            new = self.model.predict(
                token.clamp_min(0), tuple(part.index_select(0, at) for part in self.state)
            )
            for part, now in zip(old, (new[0], *new[1]), strict=True):
                if not is_cheap:  # there it is every slot
                    now = torch.where(token[:, None] >= 0, now, part)
                part.index_copy_(0, at, now)

    def _names(
        self, prefixes: Prefixes, slots: Tensor, before: Tensor, tokens: Tensor, grows: Tensor
    ) -> Tensor:
        """[B * K], as ``longer`` makes them: equal where the predictor says the same to an utterance."""
        if self.knows_all:
            return torch.add(prefixes.ids[0].flatten(), self.utterance, alpha=APART)
        names = torch.add(tokens, self.utterance, alpha=APART)
        for part in self.state:
            for column in part.flatten(1).index_select(0, before).unbind(1):
                names = longer(names, column)
        return torch.where(grows, names, self.names.index_select(0, slots))

    def _choose(self, is_out: Tensor) -> Tensor:
        """A slot [N] for each text; which of them each slot has is in ``of``."""
        # A slot that is out of the search has what the first of its utterance has.
        stand_in = torch.where(is_out, self.first, self.slots)
        names, self.of = torch.unique(self.names.index_select(0, stand_in), return_inverse=True)
        return names.scatter_(0, self.of, stand_in)
