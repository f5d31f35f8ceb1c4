"""Transducer beam search on [batch, beam] arrays, with equal prefixes merged.

In most frames of a trained model a beam only takes blanks. So every utterance goes at its own pace, from one frame in
which its beam gets a prefix to the next one: the joiner is asked for some frames ahead, and what happens in those
before the change is a few operations. Prefixes that the predictor cannot tell apart are joined once. The result is that
of going frame by frame and prefix by prefix.

Predictor, joiner and scorers compute where the model is; the beam itself is kept on the host.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from src.decoding.fusion import Fusion
from src.decoding.history import History
from src.decoding.hypothesis import Hypothesis
from src.decoding.scorer import Scorer
from src.decoding.settings import (
    NEVER,
    require,
    require_beam_size,
    require_blank,
    require_blank_in_vocabulary,
    require_lengths,
    require_symbols_per_frame,
    require_threshold,
)
from src.decoding.transducer_frames import Frames, next_change
from src.decoding.transducer_greedy import Transducer
from src.decoding.transducer_prefixes import APART, Frame, Prefixes, Step, grow, history_of, longer

FRAMES_AHEAD = 5


class TransducerBeamSearch:
    """Beam search for transducers, batched over utterances and hypotheses.

    A beam as large as the number of prefixes is exact: a hypothesis's acoustic score is log P of all its alignments
    with at most ``max_symbols_per_frame`` tokens in a frame. With one hypothesis it makes the greedy search's choices.

    Args:
        beam_size: prefixes kept per utterance, K; also the length of the n-best list.
        max_symbols_per_frame: S. With 1, the fastest, a token takes its frame, without a blank after it (as in
            Tripathi et al., arXiv 1911.01629): a model that would say two in a frame then loses nothing but time.
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
        prefixes = Prefixes.empty(B, K, self.blank)
        texts = _Texts(model, B, K)
        states = self.fusion.start(B, K, device)
        audio = _Audio(joint_encoded, encoded_lengths, *((0, FRAMES_AHEAD) if S == 1 else (1, 1)))
        grew, steps, times = np.zeros((B, K), bool), [], []
        while not audio.is_over:
            for symbol in range(S):
                frames = self._frames(audio, texts, prefixes)
                points = self._points(states, frames)
                if symbol == 0:
                    prefixes = prefixes.left_by(frames.blank_before, grew)
                    offset, active = next_change(prefixes, frames, points, self.beam_threshold, audio.left)
                    frame = audio.silent_at_the_end(frames.at(offset, active))
                    left = active + frame.blank
                else:
                    frame = audio.silent_at_the_end(frames.at(offset, active))
                    left = prefixes.left_by(frame.blank, grew).total
                prefixes, active, step = grow(
                    prefixes, active, left, frame, points, self.blank, self.beam_threshold
                )
                steps.append(step)
                times.append(audio.position + offset)
                grew = step.tokens >= 0
                texts.advance(prefixes, step, grew, audio.left <= 0)
                states = self._advanced(states, step, device)
                if not (active > NEVER).any():
                    break
            audio.move(1 + offset)
        if steps and audio.past:
            prefixes = prefixes.left_by(self._frames(audio, texts, prefixes).blank_before, grew)
        return self._read(prefixes, states, history_of(B, K, steps, times))

    def _frames(self, audio: _Audio, texts: _Texts, prefixes: Prefixes) -> Frames:
        """What may happen in the next frames."""
        log_probs = texts.model.joint(audio.look(texts.rows), texts.predicted.unsqueeze(1))
        require_blank_in_vocabulary(self.blank, log_probs)
        return Frames(log_probs.cpu().numpy(), texts.of, prefixes, self.blank, audio.past)

    def _points(self, states: list, frames: Frames) -> NDArray | None:
        """[B, K, V] what the scorers give for each next token."""
        points = self.fusion.points(states, frames.flat.shape[1])
        return None if points is None else points.cpu().numpy()

    def _advanced(self, states: list, step: Step, device: torch.device) -> list:
        """The scorers' states after a round."""
        if not states:
            return states
        parents, tokens = (
            torch.from_numpy(part).to(device) for part in (step.parents % self.beam_size, step.tokens)
        )
        return self.fusion.advance(states, parents, tokens)

    def _read(self, prefixes: Prefixes, states: list, history: History) -> list[list[Hypothesis]]:
        """Scores and texts of what is left."""
        total, fused = torch.from_numpy(prefixes.total), torch.from_numpy(prefixes.fused)
        if self.beam_threshold is not None:
            # As one more frame would, such as those beside a longer utterance.
            rank = total + fused
            total = total.masked_fill(rank < rank.amax(1, keepdim=True) - self.beam_threshold, NEVER)
        at_end = self.fusion.finish(states)
        score = total + fused + (at_end.cpu() if states else at_end)
        return history.hypotheses(score, total, has_scorers=bool(self.fusion.scorers))


class _Audio:
    """joint_encoded [B, T, H], and at which frame every utterance is."""

    def __init__(self, joint_encoded: Tensor, lengths: Tensor, past: int, ahead: int) -> None:
        B, T, _ = joint_encoded.shape
        self.flat, self.left = joint_encoded.flatten(0, 1), lengths.cpu().numpy()  # [B] frames that are left
        self.position, self.first = np.zeros(B, int), T * np.arange(B)
        self.past, self.around, self.last = past, np.arange(-past, ahead), B * T - 1

    @property
    def is_over(self) -> bool:
        return self.left.max(initial=0) <= 0

    def look(self, rows: NDArray) -> Tensor:
        """P frames before and the W next ones of some utterances [N], [N, P + W, H]; any where there is none."""
        places = (self.position + self.first).take(rows)[:, None] + self.around
        inside = np.minimum(np.maximum(places, 0), self.last).reshape(-1)
        heard = self.flat.index_select(0, torch.from_numpy(inside).to(self.flat.device))
        return heard.view(*places.shape, -1)

    def silent_at_the_end(self, frame: Frame) -> Frame:
        """With a sure blank beyond an utterance's end."""
        over = self.left <= 0
        if over.any():
            for part, value in ((frame.arc, NEVER), (frame.blank, 0.0), (frame.tokens, NEVER)):
                part[over] = value
        return frame

    def move(self, frames: NDArray) -> None:
        """Every utterance so many frames [B] on, but not beyond its end."""
        frames = np.minimum(frames, np.maximum(self.left, 0))
        self.position, self.left = self.position + frames, self.left - frames


class _Texts:
    """What the predictor makes of the prefixes: N texts.

    Prefixes of an utterance that the predictor cannot tell apart share one, as those do whose last tokens are the same
    where it sees no others; and those that are out of the search need none of their own.
    """

    def __init__(self, model: Transducer, batch_size: int, beam_size: int) -> None:
        self.model = model
        slots = np.arange(batch_size * beam_size).reshape(batch_size, beam_size)
        self.slots, self.first = (
            slots,
            slots - slots % beam_size,
        )  # [B, K] of each slot the first of its utterance
        self.rows = np.arange(batch_size)  # [N] utterance of each text
        self.of = slots // beam_size  # [B, K] text of each slot
        self.names = APART * self.of  # [B, K] of what the predictor knows of each slot's prefix
        state = model.predictor.begin(batch_size)
        begin = torch.zeros(batch_size, dtype=torch.long, device=state[0].device)
        self.predicted, self.state = model.predict(begin, state)  # [N, H]; [N, ...] each
        # A state of whole numbers is what it has seen; with one of real numbers no two prefixes are alike.
        self.knows_all = any(part.is_floating_point() for part in state)

    def advance(self, prefixes: Prefixes, step: Step, grew: NDArray, over: NDArray) -> None:
        """The prefixes now are those at ``step.parents`` of before, and ``step.tokens`` after them where they ``grew``.

        over: [B] which utterances had ended before.
        """
        before = self.of.take(step.parents)
        self.names = prefixes.name if self.knows_all else self._names(step, before, grew)
        # A slot that is out of the search has what the first of its utterance has.
        stand_in = np.where((prefixes.total == NEVER) | over[:, None], self.first, self.slots)
        _, at, of = np.unique(self.names.take(stand_in), return_index=True, return_inverse=True)
        self.of, slots = of.reshape(stand_in.shape), stand_in.take(at)
        self.rows = slots // stand_in.shape[1]
        device = self.predicted.device
        before, tokens = before.take(slots), step.tokens.take(slots)
        self.predicted, *self.state = (
            part.index_select(0, torch.from_numpy(before).to(device))
            for part in (self.predicted, *self.state)
        )
        at = (tokens >= 0).nonzero()[0]
        if len(at):
            tokens, at = (torch.from_numpy(part).to(device) for part in (tokens.take(at), at))
            new = self.model.predict(tokens, tuple(part.index_select(0, at) for part in self.state))
            for part, now in zip((self.predicted, *self.state), (new[0], *new[1]), strict=True):
                part.index_copy_(0, at, now)

    def _names(self, step: Step, before: NDArray, grew: NDArray) -> NDArray:
        """[B, K]: equal where the predictor says the same to an utterance."""
        names = step.tokens + APART * (self.first // self.first.shape[1])
        for part in self.state:
            for column in part.flatten(1).cpu().numpy().T:
                names = longer(names, column.take(before))
        return np.where(grew, names, self.names.take(step.parents))
