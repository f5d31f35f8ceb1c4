"""Where the time and the memory of inference go: a folder of recordings, transcribed once and watched from outside.

Nothing on the way from a file to a text knows of it: hooks and wrapped methods move a clock from stage to stage.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from src.datasets import BatchLimits, BucketBatchSampler, PreparedDataset, SpeechDataset, build_loader
from src.model import ParaformerModel
from src.recognizer import Recognizer
from src.utils.audio import SAMPLE_RATE
from src.utils.errors import UserError
from src.utils.memory import LiveTensors, is_out_of_memory, peak_memory
from src.utils.progress import progress_bar
from src.utils.stage_clock import StageClock, around, encoder_parts

LOADING, COPYING, FEATURES, HEAD = "load audio", "copying", "features", "head"
SEARCH, TEXT = "search", "text"
# What searches ask of a model, by the stage that it belongs to.
ASKED = {
    "write": "decoder",
    "predict": "predictor",
    "joint": "joiner",
    "remember": "speller",
    "step": "speller",
    "ctc_log_probs": "CTC layer",
}


def profile_inference(recognizer: Recognizer, dataset: SpeechDataset, limits: BatchLimits) -> dict[str, Any]:
    """Transcribes the recordings and returns what ``profile.json`` holds.

    ``stages``: name -> seconds, share of the whole, seconds of work for a second of audio, and the most bytes of
    tensors (without the weights) that lived at once while its operators ran (0: it has none) on the first batch, the
    one with the longest clips; stages that were never entered are left out. Recordings are loaded by this process, one
    after the other. Times are of the device where that is a GPU. The first batch is transcribed once before the clock
    counts. The recogniser's parts are watched ever after. Raises ``UserError`` where nothing can be read, and where a
    batch does not fit into the memory.
    """
    sampler = BucketBatchSampler(dataset.durations, **vars(limits))
    loader = build_loader(PreparedDataset(dataset), sampler)
    device = recognizer.model.device
    clock = _watch(recognizer)
    skipped = [*dataset.skipped]
    clips, batches, samples, padded = 0, 0, 0, 0
    try:
        _first(recognizer, loader, clock)  # kernels are chosen, memory is asked for
        clock.reset()
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        with progress_bar(total=len(dataset), desc="profile", unit="clip") as bar:
            for batch in _transcribed(recognizer, loader, clock):
                skipped += batch["skipped"]
                if "audio" in batch:
                    batches, clips = batches + 1, clips + len(batch["utterance_id"])
                    samples += int(batch["audio_lengths"].sum())
                    padded += batch["audio"].numel()
                bar.update(len(batch.get("utterance_id", ())) + len(batch["skipped"]))
        if not clips:
            reason = f", e.g. {skipped[0].id}: {skipped[0].reason}" if skipped else ""
            raise UserError(f"{dataset.name}: none of its recordings can be read{reason}")
        peak, wall_s, seconds = peak_memory(device), clock.wall_s, {**clock.seconds}
        weights = [*recognizer.model.parameters(), *recognizer.model.buffers()]
        with LiveTensors(lambda: clock.stack[-1], weights) as live:
            _first(recognizer, loader, clock)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise UserError("a batch does not fit into the memory; lower --batch-size") from None
    audio_s = samples / SAMPLE_RATE
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "clips": clips,
        "skipped": len(skipped),
        "batches": batches,
        "audio_s": audio_s,
        "wall_s": wall_s,
        "real_time_factor": wall_s / audio_s,
        "real_time_factor_without_loading": (wall_s - seconds[LOADING]) / audio_s,
        "padding_share": 1 - samples / padded,
        "stages": {
            stage: {
                "s": s,
                "share": s / wall_s,
                "s_per_audio_s": s / audio_s,
                "tensor_bytes": live.peaks.get(stage, 0),
            }
            for stage, s in seconds.items()
            if s
        },
        "memory_bytes": {
            "weights": sum(weight.nbytes for weight in weights),
            "tensors at most": max(live.peaks.values()),
            "peak": peak,
        },
    }


def _first(recognizer: Recognizer, loader: Any, clock: StageClock) -> None:
    """The way of the first batch of which anything can be read."""
    next((batch for batch in _transcribed(recognizer, loader, clock) if "audio" in batch), None)


def _transcribed(recognizer: Recognizer, loader: Any, clock: StageClock) -> Iterator[dict]:
    """Each batch, after it has gone its whole way."""
    batches = iter(loader)
    while True:
        clock.switch(LOADING)
        batch = next(batches, None)
        if batch is None:
            clock.end_step()
            return
        if "audio" in batch:
            clock.switch(COPYING)
            outputs = recognizer.listen(batch)
            clock.switch(SEARCH)
            recognizer.decode(outputs, batch["utterance_id"])
        clock.end_step()
        yield batch


def _watch(recognizer: Recognizer) -> StageClock:
    """A clock that the recogniser's parts move."""
    model = recognizer.model
    asked = {method: stage for method, stage in ASKED.items() if hasattr(model, method)}
    if getattr(model, "ctc_head", None) is None:  # asked in vain
        asked.pop("ctc_log_probs", None)
    modules = [(model.frontend, FEATURES), *encoder_parts(model.encoder), (model, HEAD)]
    if isinstance(model, ParaformerModel) and model.predictor is None:  # then CTC's path makes the slots
        asked.pop("write")
    if "write" in asked:  # what makes the slots is a module, what remembers tokens is asked through its model
        modules.append((model.predictor, "predictor"))
    stages = [COPYING, *(stage for _, stage in modules), *asked.values(), SEARCH, TEXT]
    clock = StageClock(model.device, dict.fromkeys([LOADING, *stages]))
    clock.watch(modules)
    for method, stage in asked.items():
        around(model, method, lambda stage=stage: clock.enter(stage), clock.leave)
    around(recognizer, "transcript", lambda: clock.enter(TEXT), clock.leave)
    return clock
