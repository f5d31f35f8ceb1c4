"""CTC prefix beam search on [batch, beam] tensors: exact where it does not prune, and fast.

The only Python loop runs over frames; what happens in one is in ``ctc_prefixes.py``.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from src.decoding.ctc_exact import log_ratio
from src.decoding.ctc_frames import Block, Frame, Frames
from src.decoding.ctc_prefixes import Candidates, Prefixes, step
from src.decoding.fusion import Fusion
from src.decoding.history import History, Pointers
from src.decoding.hypothesis import Hypothesis
from src.decoding.scorer import Scorer
from src.decoding.settings import (
    is_number,
    require,
    require_beam_size,
    require_blank,
    require_blank_in_vocabulary,
    require_count,
    require_lengths,
)
from src.utils.errors import UserError

AT_ONCE = 4  # frames that a compiled call takes: calling it costs as much as what it does
TIED = 1e-6  # nats
LONGEST_FOLDED = 4  # tokens that scorers are charged with at once, besides the step's own


class CTCBeamSearch:
    """Prefix beam search, batched over utterances and hypotheses; the same code on CPU and GPU.

    With both token limits and ``fold_sure`` ``None`` nothing is pruned but the beam, and a beam as large as the
    number of prefixes is exact: a hypothesis's acoustic score equals minus its CTC loss. In a smaller one it lacks the
    alignments whose prefixes were pruned. The most probable path's text, which greedy search finds, is always one of
    those compared in the end: it comes first where it beats the best one by all alignments, with the scorers' part.

    Args:
        beam_size: prefixes kept per utterance, K; also the length of the n-best list.
        blank: the blank's token id.
        token_top_k: extend prefixes only by each frame's k most probable tokens.
        token_min_log_prob: extend prefixes only by tokens at least this probable (natural log), and by each frame's
            most probable one.
        scorers: pairs (``Scorer``, weight) added to the acoustic score of each extension and at the end.
        fold_sure: where a token or the blank is at least this probable (0.95, say), all others count as impossible;
            a run of such frames takes one step, and blanks take none.
        compile: compile a frame's work with ``torch.compile``: 15 to 50 s at the first batch, and again at the first
            of another size, up to three times. A CPU needs a C++ compiler for it. Scorers must be capturable, as
            n-gram models, hotwords and lengths are; an LSTM is not.

    Raises ``UserError`` for a setting that is out of its range, and from ``advance`` when it cannot be compiled.

    Example:
        >>> log_probs = torch.tensor([[[0.6, 0.4, 0.0], [0.6, 0.4, 0.0]]]).log()
        >>> best = CTCBeamSearch(beam_size=4)(log_probs, torch.tensor([2]))[0][0]
        >>> best.tokens, round(best.score, 4) == round(torch.tensor(0.64).log().item(), 4)  # 1 - 0.36
        ([1], True)

    Long audio comes in pieces, so that its ``log_probs`` never exist as a whole:
        >>> search = CTCBeamSearch(beam_size=4)
        >>> beam = search.start(batch_size=1)
        >>> for piece in log_probs.split(1, dim=1):
        ...     search.advance(beam, piece, torch.tensor([1]))
        >>> search.finish(beam)[0][0].tokens
        [1]
    """

    def __init__(
        self,
        beam_size: int = 16,
        blank: int = 0,
        token_top_k: int | None = None,
        token_min_log_prob: float | None = None,
        scorers: Sequence[tuple[Scorer, float]] = (),
        fold_sure: float | None = None,
        compile: bool = False,
    ) -> None:
        require_beam_size(beam_size)
        require_blank(blank)
        if token_top_k is not None:
            require_count("token_top_k", token_top_k)
        least = token_min_log_prob
        require(least is None or is_number(least), "token_min_log_prob", least, "a finite number")
        fits = fold_sure is None or (is_number(fold_sure) and 0 < fold_sure <= 1)
        require(fits, "fold_sure", fold_sure, "a probability above 0, up to 1")
        require(isinstance(compile, bool), "compile", compile, "true or false")
        self.beam_size = beam_size
        self._slots = max(beam_size, 2)  # one is the best path's
        self.blank = blank
        self.token_top_k = token_top_k
        self.token_min_log_prob = token_min_log_prob
        self.fusion = Fusion(scorers)
        require(not self.fusion.scorers or blank == 0, "blank", blank, "0, which scorers take for no token")
        self.fold_sure = fold_sure
        self.compiles = compile
        self._after_frames = _compiled(self._consume_all) if compile else self._consume_all
        self._at_once = AT_ONCE if compile else None  # None: all of a piece

    def __call__(self, log_probs: Tensor, lengths: Tensor) -> list[list[Hypothesis]]:
        """log_probs [B, T, V] (natural log), lengths [B] -> per utterance at most K hypotheses, best first."""
        beam = self.start(log_probs.size(0), log_probs.device)
        self._advance(beam, log_probs, lengths)
        return self.finish(beam)

    @torch.inference_mode()
    def start(self, batch_size: int, device: torch.device | str = "cpu") -> Beam:
        """The beam before the first frame: the empty prefix of each utterance."""
        prefixes = Prefixes.empty(batch_size, self._slots, self.blank, torch.device(device))
        return Beam(prefixes, self.fusion.start(batch_size, self._slots, prefixes.last.device), self.blank)

    @torch.inference_mode()
    def advance(self, beam: Beam, log_probs: Tensor, lengths: Tensor) -> None:
        """Consumes the next piece: log_probs [B, T, V], of which utterance b has ``lengths[b]`` frames.

        A copy is kept until the end: T * V numbers an utterance, for an hour of 25 frames a second and 29 tokens 10 MB.
        """
        self._advance(beam, log_probs.clone(), lengths)

    @torch.inference_mode()
    def _advance(self, beam: Beam, log_probs: Tensor, lengths: Tensor) -> None:
        require_blank_in_vocabulary(self.blank, log_probs)
        require_lengths(lengths, log_probs.size(1))
        if self._at_once:  # compiled, it could not say what does not fit
            self.fusion.points(beam.scorer_states, log_probs.size(2))
        frames = Frames(
            log_probs,
            lengths.to(log_probs.device),
            self.blank,
            beam.last_best,
            # A prefix can make use of tokens 0..K; scorers may raise any token.
            shortlist=None if self.fusion.scorers else self._slots + 1,
            token_top_k=self.token_top_k,
            token_min_log_prob=self.token_min_log_prob,
            fold_sure=self.fold_sure,
            longest=LONGEST_FOLDED if self.fusion.scorers else None,
            needs_step=self.fusion.needs_step(log_probs.size(2)),
            multiple=self._at_once or 1,
        )
        B, _, M = frames.values.shape
        candidates = Candidates(B, self._slots, M, is_sorted=not self.fusion.scorers, device=log_probs.device)
        prefixes, states, pointers = beam.prefixes, beam.scorer_states, []
        if frames.folded_first is not None:
            prefixes = prefixes.after(frames.folded_first)
        for block in frames.blocks(self._at_once):
            prefixes, states, pointer = self._after_frames(prefixes, states, block, candidates)
            pointers.append(pointer)
        beam.prefixes, beam.scorer_states = prefixes, states
        if pointers:
            beam.remember(frames, Pointers(*map(torch.cat, zip(*pointers, strict=True))))
        beam.heard.append((log_probs, lengths))
        beam.num_frames = beam.num_frames + lengths.to(beam.num_frames)
        beam.last_best = frames.last_best

    @torch.inference_mode()
    def finish(self, beam: Beam) -> list[list[Hypothesis]]:
        """Per utterance at most K hypotheses, best first."""
        prefixes = beam.prefixes
        score = prefixes.total + prefixes.fused + self.fusion.finish(beam.scorer_states)
        found = beam.history.hypotheses(score, prefixes.total, has_scorers=bool(self.fusion.scorers))
        place = (score > score[:, :1]).sum(1)  # of the best path's text among them
        # Were that text certain, would it be the best one?
        may_win = (place > 0) & (score.amax(1) < score[:, 0] - prefixes.total[:, 0])
        for b in may_win.nonzero().flatten().tolist():
            _reconsider(found[b], int(place[b]), beam.log_probs(b), self.blank)
        return [hypotheses[: self.beam_size] for hypotheses in found]

    def _consume_all(
        self, prefixes: Prefixes, states: list[Any], block: Block, candidates: Candidates
    ) -> tuple[Prefixes, list[Any], Pointers]:
        """Some frames: tensors in, tensors out, so that it can be compiled."""
        pointers = []
        for frame in block.frames():
            prefixes, states, pointer = self._consume(prefixes, states, frame, candidates)
            pointers.append(pointer)
        return prefixes, states, Pointers(*map(torch.stack, zip(*pointers, strict=True)))

    def _consume(
        self, prefixes: Prefixes, states: list[Any], frame: Frame, candidates: Candidates
    ) -> tuple[Prefixes, list[Any], Pointers]:
        shortlist = None if frame.has_all_tokens else frame.tokens[:, :-1]
        fusion = self.fusion.points(states, frame.log_probs.size(1), shortlist)
        prefixes, pointers = step(prefixes, frame, candidates, fusion)
        if frame.folded is None:
            return prefixes, self.fusion.advance(states, pointers.parents, pointers.tokens), pointers
        states, added = self.fusion.advance_far(
            states, pointers.parents, pointers.tokens, frame.folded.tokens
        )
        return prefixes.after(frame.folded, added), states, pointers


class Beam:
    """A search under way: the prefixes, what the scorers know of them, and how they came about."""

    def __init__(self, prefixes: Prefixes, scorer_states: list[Any], blank: int) -> None:
        self.prefixes, self.scorer_states = prefixes, scorer_states
        batch_size, beam_size = prefixes.last.shape
        self.num_frames = torch.zeros(batch_size, dtype=torch.long, device=prefixes.last.device)  # consumed
        self.last_best = torch.full_like(self.num_frames, blank)  # the most probable token of the last one
        self.history = History(batch_size, beam_size)
        self.heard: list[tuple[Tensor, Tensor]] = []  # log_probs and lengths of each piece

    def log_probs(self, b: int) -> Tensor:
        """[T, V] of utterance b, on the CPU."""
        return torch.cat([piece[b, : lengths[b]].cpu() for piece, lengths in self.heard])

    def remember(self, frames: Frames, pointers: Pointers) -> None:
        """Keeps the back-pointers of a piece, [T', B, K] each."""
        parents, tokens = pointers.followed()
        posteriors = frames.log_probs.transpose(0, 1).gather(2, tokens.clamp_min(0))
        times = (frames.times + self.num_frames[:, None]).T
        self.history.add(parents, tokens, posteriors, times.unsqueeze(2))
        if frames.folding is not None:
            rows, tokens, posteriors, times = frames.folding.spelled
            self.history.add_to_all(rows, tokens, posteriors, times + self.num_frames[rows])


def _reconsider(hypotheses: list[Hypothesis], place: int, log_probs: Tensor, blank: int) -> None:
    """Puts the text of the best path first where it beats the best one when all of their alignments count."""
    best, written = hypotheses[0], hypotheses[place]
    scorers = written.parts.get("scorers", 0.0)
    needed = best.score - scorers - best.parts["acoustic"]
    acoustic = best.parts["acoustic"] + log_ratio(log_probs, written, best, blank, needed)
    score = acoustic + scorers
    if best.score + TIED < score < math.inf:
        written.score, written.parts["acoustic"] = score, acoustic
        hypotheses.insert(0, hypotheses.pop(place))


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    compiled = torch.compile(function, fullgraph=True, options={"cpp_wrapper": True})
    is_first = True

    def call(*args: Any) -> Any:
        nonlocal is_first
        if is_first:
            print("compiling the search: 15 to 50 s for the first batch", file=sys.stderr, flush=True)
            is_first = False
        try:
            return compiled(*args)
        except Exception as error:
            if not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
                raise
            reason = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
            raise UserError(f"compile=true: {reason or type(error).__name__}; search without it") from None

    return call
