"""One pass over a data set: every metric, the loss and the samples come from the same decoding."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from src.datasets import Skipped
from src.metrics import corpus_error_rates
from src.recognizer import Recognizer
from src.text_encoder import TextEncoder
from src.trainer.optimization import add_up
from src.trainer.step import TrainingStep
from src.utils.devices import to_device
from src.utils.memory import in_memory
from src.utils.processes import Processes
from src.utils.progress import progress_bar

NORMALIZER = "normalizer"
MOST_LOSS = 100.0  # the exponential of more is hardly a number


@dataclass
class Evaluation:
    """Scores of one data set."""

    # loss, what else the objective measures, wer_NAME and cer_NAME of each search (fractions); without one, perplexity
    metrics: dict[str, float]
    references: dict[str, str]  # by utterance id
    predictions: dict[str, dict[str, str]] = field(repr=False)  # search name -> utterance id -> text
    skipped: list = field(repr=False, default_factory=list)


@torch.inference_mode()
def evaluate(
    step: TrainingStep,
    text_encoder: TextEncoder,
    searches: Mapping[str, Any],
    batches: Iterable[dict],
    progress: str | None = None,
    processes: Processes | None = None,
) -> Evaluation:
    """Scores the model of ``step`` on batches with transcripts, with each of ``searches``.

    Computed in fp32, as by ``Recognizer``, so that a score is that of the shared checkpoint on any device.

    Utterances without a usable transcript or audio, and those too long for the memory, are left out and listed in
    ``skipped``. With several
    ``processes`` each scores its own ``batches``, and all get the result of all.
    """
    was_training = step.training
    step.eval()
    device = step.model.device
    recognizers = {name: Recognizer(step.model, text_encoder, search) for name, search in searches.items()}

    def score(batch: dict) -> tuple[dict[str, float], dict[str, list[str]]]:
        losses, outputs = step(to_device(batch, device))
        texts = {
            name: [transcript.text for transcript in recognizer.decode(outputs, batch["utterance_id"])]
            for name, recognizer in recognizers.items()
        }
        sums = {"loss": losses["loss_sum"], **losses.get("measures", {}), NORMALIZER: losses["normalizer"]}
        return {name: float(value) for name, value in sums.items()}, texts

    sums: dict[str, float] = {}
    references: dict[str, str] = {}
    predictions: dict[str, dict[str, str]] = {name: {} for name in searches}
    skipped = []
    processes = processes or Processes()
    shown = progress is not None and processes.is_first
    for batch in progress_bar(batches, desc=progress, leave=False, disable=not shown):
        skipped += batch["skipped"]
        if "tokens" not in batch:
            continue
        done, left_out = in_memory(score, batch)
        skipped += [Skipped(i, "", f"its {s:.0f} s do not fit into the memory") for i, s in left_out.items()]
        for part, (more, texts) in done:
            add_up(sums, more)
            references.update(zip(part["utterance_id"], part["text"], strict=True))
            for name in searches:
                predictions[name].update(zip(part["utterance_id"], texts[name], strict=True))
    step.train(was_training)
    own = sums, references, predictions, skipped
    sums, references, predictions, skipped = {"loss": 0.0}, {}, {name: {} for name in searches}, []
    for theirs in processes.gather(own):
        add_up(sums, theirs[0])
        references |= theirs[1]
        for name in searches:
            predictions[name] |= theirs[2][name]
        skipped += theirs[3]
    normalizer = sums.pop(NORMALIZER, 0.0) or math.nan  # of no usable clip there is no mean
    metrics = {name: value / normalizer for name, value in sums.items()}
    if not searches:
        metrics["perplexity"] = math.exp(min(metrics["loss"], MOST_LOSS))
    for name in searches:
        rates = corpus_error_rates(list(references.values()), [predictions[name][i] for i in references])
        metrics[f"wer_{name}"], metrics[f"cer_{name}"] = rates["wer"], rates["cer"]
    return Evaluation(metrics, references, predictions, skipped)
