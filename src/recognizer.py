"""Audio in, text out: the one path that ``inference.py``, the demo and evaluation during training share."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from src.checkpoint import Checkpoint
from src.datasets import load_audio
from src.decoding import Hypothesis, NBestRescoring, SpeechLLMGreedySearch
from src.decoding.streaming import written_so_far
from src.decoding.token_times import take_times_from_ctc
from src.model import SpeechModel
from src.text_encoder import WORD_START, TextEncoder, normalize
from src.utils.audio import SAMPLE_RATE
from src.utils.devices import choose_device
from src.utils.errors import TextError, UserError
from src.utils.memory import in_memory
from src.utils.pauses import cut_at_pauses


def _samples(recording: np.ndarray, position: int) -> np.ndarray:
    """The array as float32 [N]. Raises ``UserError`` for what cannot be samples in [-1, 1] (and a little above)."""
    if recording.ndim == 1 and recording.dtype.kind == "f" and (abs(recording) <= 10).all():
        return recording.astype(np.float32, copy=False)
    got = f"{recording.dtype} {recording.shape}"
    raise UserError(f"recording {position}: expected samples [N] as floats in [-1, 1], got {got}; convert it")


def _innermost(search: Any) -> Any:
    """The search that reads what the model returned."""
    return search.search if isinstance(search, NBestRescoring) else search


def is_search_for(search: Any, inputs: tuple) -> bool:
    """Whether a search takes a model's ``search_inputs``: as many, and with the methods of the ``Protocol`` that it
    names for a model."""
    signature = inspect.signature(_innermost(search), eval_str=True)
    try:
        arguments = signature.bind(*inputs).arguments
    except TypeError:
        return False
    kinds = [(value, signature.parameters[name].annotation) for name, value in arguments.items()]
    # isinstance would not see the layers of a module (Python 3.12).
    return all(
        hasattr(value, method)
        for value, kind in kinds
        if getattr(kind, "_is_protocol", False)
        for method in vars(kind)
        if not method.startswith("_")
    )


@dataclass
class Transcript:
    """What was said in one recording."""

    id: str
    text: str
    words: list[tuple[str, float, float, float]]  # text, start in s, end in s, confidence in (0, 1]
    hypotheses: list[Hypothesis] = field(repr=False, default_factory=list)  # best first, with their texts


def _joined(pieces: list[tuple[Transcript, int]]) -> Transcript:
    """One recording's transcript from those of its pieces, and how many samples each of these has."""
    first = pieces[0][0]
    if len(pieces) == 1:
        return first
    words, before = [], 0
    for transcript, samples in pieces:
        shift = before / SAMPLE_RATE
        words += [(word, round(a + shift, 3), round(b + shift, 3), p) for word, a, b, p in transcript.words]
        before += samples
    return Transcript(first.id, " ".join(t.text for t, _ in pieces if t.text), words)


class Recognizer:
    """A model, its tokenizer and a search; and perhaps a recogniser with CTC, ``times_from``, that says when the words
    were said of a model that does not know (a speech LLM).

    Example (with a checkpoint directory):
        ``Recognizer.load("checkpoints/demo", decoder="beam").transcribe(["a.wav", "b.flac"])``
    """

    def __init__(
        self,
        model: SpeechModel,
        text_encoder: TextEncoder,
        search: Any,
        times_from: Recognizer | None = None,
    ) -> None:
        self.model = model
        self.text_encoder = text_encoder
        self.search = search
        self.times_from = times_from

    @classmethod
    def load(
        cls,
        checkpoint_dir: str | Path,
        decoder: str = "greedy",
        device: str = "auto",
        overrides: dict[str, Any] | None = None,
        times_from: str | Path | None = None,
    ) -> Recognizer:
        """Opens a shared checkpoint.

        Args:
            checkpoint_dir: the directory, a run's folder, or a pointer file such as ``checkpoints/best``.
            decoder: a name from the checkpoint's ``decoders`` or from ``src/configs/extra_decoders``, or a YAML file.
            device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``...
            overrides: settings of the search to replace, e.g. ``{"beam_size": 50}``.
            times_from: a checkpoint with CTC, which finds the words of a model that does not know their times.

        Raises ``UserError`` for anything missing, damaged or unknown.
        """
        checkpoint = Checkpoint.open(checkpoint_dir)
        search = checkpoint.search(decoder, overrides)
        aligner = None if times_from is None else cls.load(times_from, device=device)
        if aligner is not None:
            silence = {
                "audio": torch.zeros(1, SAMPLE_RATE // 10),
                "audio_lengths": torch.tensor([SAMPLE_RATE // 10]),
            }
            try:
                aligner.find_words(silence, [""])
            except UserError as error:
                raise UserError(f"times_from={times_from}: {error}") from None
        return cls(checkpoint.model().to(choose_device(device)), checkpoint.text_encoder(), search, aligner)

    def try_out(self) -> None:
        """Searches in a tenth of a second of silence. Raises ``UserError`` where search and model do not fit.

        A search that is to be compiled is left out: it would be compiled for that size.
        """
        if not getattr(_innermost(self.search), "compiles", False):
            self.transcribe([np.zeros(SAMPLE_RATE // 10, np.float32)])

    def transcribe(
        self,
        recordings: Sequence[str | Path | np.ndarray],
        batch_size: int = 16,
        longest_s: float | None = None,
    ) -> list[Transcript]:
        """Files of any format and rate, or arrays [N] of 16 kHz samples in [-1, 1]; results in their order.

        A file's id is its name without the suffix, an array's its position. What is longer than ``longest_s`` is cut at
        pauses, and its pieces' texts and words are joined (it has no hypotheses then). Raises ``AudioError`` for a
        recording that cannot be read.
        """
        if isinstance(recordings, str | Path):
            name = str(recordings)
            raise UserError(f"transcribe: {name!r} is one recording; give a list of them: [{name!r}]")
        clips = []
        for position, recording in enumerate(recordings):
            if isinstance(recording, np.ndarray):
                clips.append((str(position), _samples(recording, position)))
            else:
                clips.append((Path(recording).stem, load_audio(recording)))
        return self.transcribe_clips(clips, batch_size, longest_s)

    def transcribe_clips(
        self, clips: list[tuple[str, np.ndarray]], batch_size: int = 16, longest_s: float | None = None
    ) -> list[Transcript]:
        """Ids and samples [N]; as ``transcribe``."""
        if longest_s is not None:
            cut = [[(name, piece) for piece in cut_at_pauses(samples, longest_s)] for name, samples in clips]
            pieces = iter(self.transcribe_clips([piece for whole in cut for piece in whole], batch_size))
            return [_joined([(next(pieces), len(samples)) for _, samples in whole]) for whole in cut]
        # Clips of similar length together.
        order = sorted(range(len(clips)), key=lambda position: len(clips[position][1]))
        results: dict[int, Transcript] = {}
        for start in range(0, len(order), batch_size):
            positions = order[start : start + batch_size]
            audio = [torch.from_numpy(clips[position][1]) for position in positions]
            batch = {
                "utterance_id": [clips[position][0] for position in positions],
                "audio": torch.nn.utils.rnn.pad_sequence(audio, batch_first=True),
                "audio_lengths": torch.tensor([len(clip) for clip in audio]),
            }
            results.update(zip(positions, self.recognize(batch), strict=True))
        return [results[position] for position in range(len(clips))]

    def stream(self, recording: str | Path | np.ndarray) -> Iterator[str]:
        """The text of one recording while it is being written, token by token; the last one is the whole.

        Raises ``UserError`` for another search than a speech LLM's ``greedy``.
        """
        if type(self.search) is not SpeechLLMGreedySearch:
            raise UserError(
                f"stream: {type(self.search).__name__} writes nothing step by step; use a speech LLM's greedy"
            )
        samples = _samples(recording, 0) if isinstance(recording, np.ndarray) else load_audio(recording)
        audio = {"audio": torch.from_numpy(samples)[None], "audio_lengths": torch.tensor([len(samples)])}
        inputs = self.model.search_inputs(self.listen(audio))
        yield from map(self.text_encoder.decode, written_so_far(self.search, *inputs))

    @torch.inference_mode()
    def listen(self, batch: dict) -> dict[str, Tensor]:
        """What the model returns for a collated batch (``audio`` [B, N], ``audio_lengths`` [B])."""
        device = self.model.device
        return self.model(*self.model.frontend(batch["audio"].to(device), batch["audio_lengths"].to(device)))

    def recognize(self, batch: dict) -> list[Transcript]:
        """One collated batch, with ``utterance_id`` -> B transcripts."""
        transcripts = self.decode(self.listen(batch), batch["utterance_id"])
        if self.times_from is not None:
            without = [transcript for transcript in transcripts if not transcript.words]
            rows = torch.tensor([row for row, transcript in enumerate(transcripts) if not transcript.words])
            if without:
                clips = {name: batch[name][rows] for name in ("audio", "audio_lengths")}
                for transcript, words in zip(
                    without, self.times_from.find_words(clips, [t.text for t in without]), strict=True
                ):
                    transcript.words = words
        return transcripts

    def find_words(self, batch: dict, texts: list[str]) -> list[list[tuple[str, float, float, float]]]:
        """When the words of texts were said in a batch's clips (forced alignment by CTC): text, start and end in s, and
        confidence. None of a text that CTC's tokens cannot write or that the clip is too short for.

        Raises ``UserError`` for a model without CTC.
        """
        outputs = self.listen(batch)
        log_probs, lengths = outputs.get("log_probs"), outputs.get("log_prob_lengths")
        if log_probs is None and hasattr(self.model, "ctc_log_probs"):
            log_probs, lengths = self.model.ctc_log_probs(outputs["encoded"]), outputs["encoded_lengths"]
        if log_probs is None:
            raise UserError(
                f"a {type(self.model).__name__} has no CTC layer to align words with; give another checkpoint"
            )
        found = [[Hypothesis(self._tokens(text), 0.0)] for text in texts]
        take_times_from_ctc(found, log_probs, lengths)
        for row, (hypothesis,) in enumerate(found):
            if hypothesis.token_times:
                hypothesis.token_log_probs = log_probs[
                    row, hypothesis.token_times, hypothesis.tokens
                ].tolist()
        return [self._words(hypothesis) for (hypothesis,) in found]

    def _tokens(self, text: str) -> list[int]:
        try:
            return self.text_encoder.encode(normalize(text))
        except TextError:
            return []

    def recognize_in_memory(
        self, batch: dict, longest_s: float | None = None
    ) -> tuple[list[Transcript], dict[str, float]]:
        """``recognize``, by halves where the memory does not do for all; and the seconds of clips too long alone.

        What is longer than ``longest_s`` is cut at pauses, as by ``transcribe``.
        """
        recognize = self.recognize if longest_s is None else partial(self._recognize_cut, longest_s=longest_s)
        done, left_out = in_memory(recognize, batch)
        return [transcript for _, transcripts in done for transcript in transcripts], left_out

    def _recognize_cut(self, batch: dict, longest_s: float) -> list[Transcript]:
        """As many pieces together as take no more padded audio than the batch."""
        rows = zip(batch["utterance_id"], batch["audio"], batch["audio_lengths"].tolist(), strict=True)
        clips = [(name, samples[:length].numpy()) for name, samples, length in rows]
        together = max(1, int(batch["audio"].numel() / (longest_s * SAMPLE_RATE)))
        return self.transcribe_clips(clips, together, longest_s)

    @torch.inference_mode()
    def decode(self, outputs: dict[str, Tensor], utterance_ids: list[str]) -> list[Transcript]:
        """Searches in what the model returned for a batch. Raises ``UserError`` for a search of another family."""
        inputs = self.model.search_inputs(outputs)
        if not is_search_for(self.search, inputs):
            raise UserError(
                f"decoder: {type(_innermost(self.search)).__name__} is no search for a {type(self.model).__name__}; "
                "give one of its own, or a YAML with 'search_of_checkpoint: beam'"
            )
        found = self.search(*inputs)
        return [self.transcript(i, hypotheses) for i, hypotheses in zip(utterance_ids, found, strict=True)]

    def transcript(self, utterance_id: str, hypotheses: list[Hypothesis]) -> Transcript:
        """What a search found in a recording, best first, as text and words."""
        for hypothesis in hypotheses:
            hypothesis.text = self.text_encoder.decode(hypothesis.tokens)
        best = hypotheses[0]
        return Transcript(utterance_id, best.text, self._words(best), hypotheses)

    def _words(self, hypothesis: Hypothesis) -> list[tuple[str, float, float, float]]:
        """Groups tokens at word starts; a word's confidence is the geometric mean of its tokens' posteriors."""
        if len(hypothesis.token_times) != len(hypothesis.tokens) or not hypothesis.token_log_probs:
            return []
        groups: list[list[int]] = []
        for position, token in enumerate(hypothesis.tokens):
            piece = self.text_encoder.tokens[token]
            if piece.startswith(WORD_START) or not groups:
                groups.append([])
            if piece != WORD_START:
                groups[-1].append(position)
        words = []
        for group in filter(None, groups):
            text = self.text_encoder.decode([hypothesis.tokens[position] for position in group])
            start = hypothesis.token_times[group[0]] * self.model.frame_s
            end = (hypothesis.token_times[group[-1]] + 1) * self.model.frame_s
            mean = sum(hypothesis.token_log_probs[position] for position in group) / len(group)
            words.append((text, round(start, 3), round(end, 3), math.exp(min(mean, 0.0))))
        return words
