"""What a run says of itself: the progress bar, the writers, and the card of its checkpoints."""

from __future__ import annotations

import math
import os
import shlex
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from src.datasets import Skipped
from src.logger import Sample, Writers
from src.metrics import corpus_error_rates
from src.trainer.evaluation import Evaluation
from src.trainer.optimization import StepReport, add_up
from src.utils.devices import ThreadTime
from src.utils.plots import Looks, spectrogram_figure
from src.utils.seeding import addressed_rng

WHY_TOO_SHORT = "too short: its encoder makes no frame of it"  # unless the objective says otherwise
WATCHED_S, CROWDED = 20.0, 0.6  # seconds of computing, and the share of the threads' time they got


class Reporter:
    """Collects what the loop notes and tells the bar and the writers at the right moments."""

    def __init__(
        self,
        writers: Writers,
        model: nn.Module,
        dev_loader: Any | None,
        num_samples: int,
        seed: int,
        why_too_short: str = WHY_TOO_SHORT,
    ) -> None:
        self.writers = writers
        self.model = model
        self.dev_loader = dev_loader
        self.num_samples = num_samples
        self.seed = seed
        self.why_too_short = why_too_short
        self.bar: tqdm | None = None
        self.skipped: dict[str, str] = {}  # utterance id -> reason, over the whole run
        self.counts: Counter[str] = Counter()
        self.parts: dict[str, float] = {}  # sums over the tokens since the last record
        self.measures: dict[str, float] = {}  # likewise
        self.audio_s = self.tokens = 0.0
        self.since = time.monotonic()
        self.example: dict | None = None
        self.shown: dict[str, str] = {}
        self.started = False
        self.watches_neighbours = True

    def start(self, run_dir: Path, config: dict[str, Any], resumed_step: int | None) -> None:
        self.writers.start(run_dir, config, resumed_step)
        self.started = True

    def close(self) -> None:
        if self.started:
            self.writers.close()

    def introduce(self, trainer: Any) -> None:
        """One line on what is about to run, where, and on how much."""
        parameters = parameters_of(trainer.step.model)
        data = trainer.train_loader.dataset.dataset
        dtype = str(trainer.dtype).removeprefix("torch.")
        self.say(
            f"{parameters}, {data.amount}, {trainer.total_steps} steps "
            f"on {trainer.device} in {dtype}; run folder {trainer.folder.directory}"
        )

    def note_skipped(self, skipped: list) -> None:
        for item in skipped:
            if item.id not in self.skipped:
                self.say(f"skipped {item.id}: {item.reason}")
            self.skipped[item.id] = item.reason

    def note_step(self, step: int, report: StepReport, lr: float, log: bool) -> None:
        """One optimizer step and its learning rate."""
        self.note_skipped(report.skipped)
        self.audio_s += report.audio_s
        self.tokens += report.normalizer
        self.example = report.example or self.example
        for utterance_id in report.too_short:
            self._note_unusable(utterance_id, f"{self.why_too_short}; its loss counts as 0")
        for utterance_id, seconds in report.too_long.items():
            self._note_unusable(
                utterance_id,
                f"{seconds:.1f} s are too long for the memory; lower the data set's max_duration_s",
            )
        if report.dropped:
            self.counts["bad_steps"] += 1
            self.say(f"step {step}: left out, {report.dropped}")
        self.counts["too_short"] += len(report.too_short)
        add_up(self.parts, report.parts)
        add_up(self.measures, report.measures)
        if not log:
            return
        elapsed = max(1e-9, time.monotonic() - self.since)
        # Of the steps since the last record; the parts sum to the loss that is minimised.
        parts = {name: value / self.tokens for name, value in self.parts.items() if self.tokens}
        loss = sum(parts.values()) if parts else math.nan
        self.writers.scalars(
            step,
            {
                "train/loss": loss,
                **{f"train/loss_{name}": value for name, value in parts.items()},
                **{
                    f"train/{name}": value / self.tokens
                    for name, value in self.measures.items()
                    if self.tokens
                },
                "train/gradient_norm": report.norm,
                "train/learning_rate": lr,
                "train/audio_s_per_s": self.audio_s / elapsed,
                "train/too_short": self.counts["too_short"],
                "train/bad_steps": self.counts["bad_steps"],
                "train/skipped": len(self.skipped),
            },
        )
        self._show(
            loss=f"{loss:.3f}",
            lr=f"{lr:.1e}",
            speed=f"{self.audio_s / elapsed:.0f}x"
            if self.audio_s
            else f"{self.tokens / elapsed:.0f} tokens/s",
        )
        self._begin_anew()

    def _begin_anew(self) -> None:
        self.parts, self.measures = {}, {}
        self.audio_s, self.tokens, self.since = 0.0, 0.0, time.monotonic()

    def _note_unusable(self, utterance_id: str, reason: str) -> None:
        if utterance_id not in self.skipped:
            self.say(f"{utterance_id}: {reason}")
        self.skipped[utterance_id] = reason

    def note_neighbours(self, device: torch.device, thread_time: ThreadTime) -> None:
        """Says once, after some time of computing on a CPU, that other programs slow down all threads together."""
        threads = torch.get_num_threads()
        if self.watches_neighbours and thread_time.seconds > WATCHED_S:
            self.watches_neighbours = False
            if device.type == "cpu" and threads > 1 and thread_time.share < CROWDED:
                self.say(
                    f"other programs keep the cores busy, and {threads} threads wait for each other: stopped (Ctrl-C) "
                    f"and gone on with OMP_NUM_THREADS=1 before the command, this may be several times faster"
                )

    def note_evaluation(self, step: int, evaluation: Evaluation, search: str | None) -> None:
        """Dev scores, random samples with audio and picture, and one augmented training clip.

        ``search`` is the one that was scored; None: the model has none, it is a language model.
        """
        metrics = evaluation.metrics
        self.writers.scalars(step, {f"dev/{name}": value for name, value in metrics.items()})
        if search is None:
            self._show(dev_loss=f"{metrics['loss']:.3f}")
            self.say(f"step {step}: dev loss {metrics['loss']:.3f}  perplexity {metrics['perplexity']:.2f}")
            self.note_skipped(evaluation.skipped)
            self._begin_anew()
            return
        self._show(dev_wer=f"{100 * metrics[f'wer_{search}']:.2f}%")
        wer, cer = 100 * metrics[f"wer_{search}"], 100 * metrics[f"cer_{search}"]
        accuracies = "".join(
            f"  {name.replace('_', ' ')} {100 * value:.2f} %"
            for name, value in metrics.items()
            if name.endswith("accuracy")
        )
        self.say(
            f"step {step}: dev loss {metrics['loss']:.3f}  {search} WER {wer:.2f} %  CER {cer:.2f} %{accuracies}"
        )
        self.note_skipped(evaluation.skipped)
        ids = list(evaluation.references)
        rng = addressed_rng(self.seed, "samples", step)
        chosen = rng.choice(len(ids), size=min(self.num_samples, len(ids)), replace=False)
        self.writers.samples(step, "dev", self._samples(evaluation, search, [ids[i] for i in sorted(chosen)]))
        if self.example is not None:
            audio = self.example["audio"][0, : int(self.example["audio_lengths"][0])].float().cpu().numpy()
            self.writers.audio(step, "train/augmented", audio)
            features = self._features(audio)
            self.writers.figure(
                step, "train/augmented", spectrogram_figure(features, self.example["text"][0])
            )
        self._begin_anew()

    def note_final(self, step: int, evaluation: Evaluation, searches: dict[str, Any]) -> None:
        """Scores of the best checkpoint by every search."""
        if self.started:
            self.writers.scalars(step, {f"final/{name}": value for name, value in evaluation.metrics.items()})
        if not searches:
            self.say(f"best checkpoint on dev: perplexity {evaluation.metrics['perplexity']:.2f} a token")
        for name in searches:
            wer, cer = evaluation.metrics[f"wer_{name}"], evaluation.metrics[f"cer_{name}"]
            self.say(f"best checkpoint on dev, {name}: WER {100 * wer:.2f} %  CER {100 * cer:.2f} %")
        if self.skipped:
            self.say(
                f"{len(self.skipped)} utterances could not be used, e.g. {', '.join(list(self.skipped)[:5])}"
            )

    def say(self, line: str) -> None:
        """A line above the progress bar."""
        if sys.stderr.isatty():
            tqdm.write(line)
        else:  # a log file: the bar need not make way
            print(line, flush=True)

    def say_at_once(self, line: str) -> None:
        """From within a signal's handler, where print may find itself interrupted half way."""
        os.write(sys.stderr.fileno(), f"\n{line}\n".encode())

    @torch.inference_mode()
    def _features(self, audio: np.ndarray) -> np.ndarray:
        """[N] -> [T, F], as the model hears it."""
        device = self.model.device
        features, _ = self.model.frontend(
            torch.from_numpy(audio)[None].to(device), torch.tensor([len(audio)], device=device)
        )
        return features[0].cpu().numpy()

    @torch.inference_mode()
    def _looks(self, features: np.ndarray, text: str) -> Looks | None:
        """[T, F] -> where the model looked while it wrote the text, in families that do so."""
        text_encoder, device = self.dev_loader.dataset.text_encoder, self.model.device
        tokens = text_encoder.encode(text)
        was_training = self.model.training
        self.model.eval()
        weights = self.model.attention(
            torch.from_numpy(features)[None].to(device),
            torch.tensor([len(features)], device=device),
            torch.tensor([tokens], dtype=torch.long, device=device),
        )
        self.model.train(was_training)
        if weights is None:
            return None
        return Looks(weights[0].cpu().numpy(), [*(text_encoder.tokens[token] for token in tokens), "end"])

    def _show(self, **values: str) -> None:
        self.shown.update(values)
        if self.bar is not None:
            self.bar.set_postfix(self.shown)

    def _samples(self, evaluation: Evaluation, search: str, ids: list[str]) -> list[Sample]:
        prepared = self.dev_loader.dataset
        rows = {utterance_id: row for row, utterance_id in enumerate(prepared.dataset.ids)}
        samples = []
        for utterance_id in ids:
            target, prediction = (
                evaluation.references[utterance_id],
                evaluation.predictions[search][utterance_id],
            )
            rates = corpus_error_rates([target], [prediction])
            item = prepared[rows[utterance_id]]
            if isinstance(item, Skipped):  # it could be read a moment ago
                continue
            audio = item["audio"].numpy()
            spectrogram = self._features(audio)
            looks = self._looks(spectrogram, prediction)
            samples.append(
                Sample(
                    utterance_id, target, prediction, rates["wer"], rates["cer"], audio, spectrogram, looks
                )
            )
        return samples


class SilentReporter:
    """For every process but the first: whatever it is told to note, it keeps to itself."""

    bar: tqdm | None = None

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: None


def parameters_of(model: nn.Module) -> str:
    """How many weights there are; where some are frozen, also which parts' are trained."""
    total = sum(weight.numel() for weight in model.parameters())
    trained = {
        name: sum(weight.numel() for weight in part.parameters() if weight.requires_grad)
        for name, part in model.named_children()
    }
    if all(weight.requires_grad for weight in model.parameters()):
        return f"{total:,} parameters"
    parts = ", ".join(f"{name} {count:,}" for name, count in trained.items() if count)
    return f"{sum(trained.values()):,} of {total:,} parameters are trained ({parts})"


def how_to_use(config: dict[str, Any], checkpoint: Path | str) -> str:
    """The command that a checkpoint is made for, or the line of a decoder YAML."""
    if config.get("training", {}).get("config") == "paraformer_toy":  # nobody speaks its language
        return shlex.join(["python", "scripts/toy_inference.py", str(checkpoint), "--text", "hello world"])
    if config["decoders"]:
        words = [f"checkpoint={checkpoint}", "data_dir=FOLDER", "save_dir=OUT"]
        return shlex.join(["python", "inference.py", *words, f"decoder={[*config['decoders']][-1]}"])
    return f"{{_target_: src.lm.NeuralScorer, lm: {checkpoint}}} in src/configs/extra_decoders/beam_rescored.yaml"


def model_card(
    name: str, config: dict[str, Any], steps: int, seconds: float, scores: dict[str, float]
) -> str:
    """The checkpoint's README.md: data, steps and scores, no local paths."""
    training = config.get("training", {})
    kind = "speech recogniser" if config["decoders"] else "language model"
    lines = [
        f"# {name}",
        "",
        f"A {kind} trained with Lectern (`-cn={training.get('config')}`).",
        "",
        f"- data: {training.get('data')}",
        f"- optimizer steps: {steps}, {seconds / 60:.0f} minutes of training",
        *(f"- dev {key}: {value:.4f}" for key, value in scores.items()),
        "",
        f"Use: `{how_to_use(config, 'THIS_FOLDER')}`",
        "",
    ]
    return "\n".join(lines)
