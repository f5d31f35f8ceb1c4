"""Finds how many clips of each length a training step can hold: real optimizer steps on made-up clips.

    python scripts/find_batch_size.py -cn=conformer_ctc datasets=librispeech
    python scripts/find_batch_size.py -cn=quickstart trainer.device=cpu --memory-gb 4 --lengths 2,5

On a GPU the limit is its memory, on a CPU (where a system that runs out of memory dies) what --memory-gb grants;
a tenth of it stays free. The last lines are the settings to paste behind train.py.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import lru_cache, partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from omegaconf import DictConfig

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src.datasets import PreparedDataset
from src.datasets.collate import collate
from src.datasets.samplers import WINDOW
from src.trainer import Trainer, trainer_to_measure
from src.utils.audio import SAMPLE_RATE
from src.utils.errors import UserError, door
from src.utils.hydra_door import config_and_options
from src.utils.memory import peak_memory
from src.utils.progress import progress_bar
from src.utils.seeding import addressed_rng

SHARE = 0.9  # of the memory that a step may take; the rest is for fragments and whatever else runs there
TOKENS_PER_SECOND = 20  # fast speech in characters; subword units are fewer
LENGTHS = (2, 5, 10, 15, 20)  # seconds; and the longest clip's
GB = 1e9


def largest_batch(peak: Callable[[int], int | None], limit: float, most: int = WINDOW) -> tuple[int, int]:
    """Most clips whose ``peak(clips)`` in bytes stays below ``limit`` (to within a twentieth), and that peak.

    None stands for a step that ran out of memory. The number of clips grows fourfold until a step fails, and
    then the gap is halved; no step is tried that would pass the limit if memory grows with the clips as it last did.
    """
    fitting, used, failing = 0, peak(0), most + 1
    if used is None or used > limit:
        raise UserError(
            f"the model alone takes {'more' if used is None else f'{used / GB:.2f} GB'} of the "
            f"{limit / GB:.2f} GB that may be used; choose a smaller model, or grant more with --memory-gb"
        )
    clips = 1
    while clips - fitting > fitting // 20:
        now = peak(clips)
        if now is None or now > limit:
            failing = clips
            clips = (fitting + failing) // 2
        else:
            per_clip = max((now - used) / (clips - fitting), 1e-3)
            fitting, used = clips, now
            bound = 4 * fitting if failing > most else (fitting + failing) // 2
            clips = int(min(bound, most, fitting + (limit - used) / per_clip))
    return fitting, used


def memory_of_a_step(trainer: Trainer, seconds: float, clips: int) -> int | None:
    """Peak bytes of an optimizer step on so many clips of so many seconds; None when they do not fit."""
    a_second = made_up_batch(trainer, 1.0, 1)
    trainer.optimization.run([a_second], 0)  # the first step makes the optimizer's state
    if trainer.device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(trainer.device)
    group = [a_second]
    if clips:  # with accumulation the gradients of earlier micro-batches take their place, too
        group = group[: trainer.options.accumulate - 1] + [made_up_batch(trainer, seconds, clips)]
    report = trainer.optimization.run(group, 1)
    whole = not report.too_long and len(report.example["utterance_id"]) == max(clips, 1)
    return peak_memory(trainer.device) if whole else None  # otherwise it was cut in two


def made_up_batch(trainer: Trainer, seconds: float, clips: int) -> dict:
    """Noise, with tokens as dense as speech has them and the model's frames allow."""
    tokens = int(seconds * min(TOKENS_PER_SECOND, 0.8 / trainer.step.model.frame_s))
    item = {
        "text": "noise",
        "utterance_id": "noise",
        "audio": 0.1 * torch.randn(int(seconds * SAMPLE_RATE)),
        "tokens": 1 + torch.arange(tokens) % (trainer.text_encoder.vocab_size - 1),
    }
    if draws := trainer.train_loader.dataset.spec_draws:
        item["spec_draws"] = torch.rand(draws)
    return collate([item] * clips)


def stretch(prepared: PreparedDataset) -> float:
    """How many times longer augmentation (slower speech) makes a clip at most, tried on a second of noise."""
    if prepared.augmentations is None:
        return 1.0
    audio = 0.1 * addressed_rng("noise").standard_normal(SAMPLE_RATE, dtype=np.float32)
    tries = [prepared.augmentations(audio, addressed_rng("stretch", number)) for number in range(32)]
    return max(1.0, max(map(len, tries)) / SAMPLE_RATE)


class StepsInChildren:
    """``memory_of_a_step`` by clips, on a CPU: in another process, because the most that one has had never falls."""

    def __init__(self, config: DictConfig, seconds: float) -> None:
        self.config, self.seconds = config, seconds
        self.child, self.most = None, 0

    def __call__(self, clips: int) -> int | None:
        if self.child is None or clips < self.most:  # after smaller steps a larger one can still be seen
            self.close()
            self.child = ProcessPoolExecutor(1, get_context("spawn"))
        self.most = clips
        try:
            return self.child.submit(_in_child, self.config, self.seconds, clips).result()
        except BrokenProcessPool:  # killed by the system
            self.child = None
            return None

    def close(self) -> None:
        if self.child is not None:
            self.child.shutdown()


_trainer = lru_cache(1)(trainer_to_measure)  # of the child


def _in_child(config: DictConfig, seconds: float, clips: int) -> int | None:
    return memory_of_a_step(_trainer(config), seconds, clips)


def settings(clips_by_length: dict[float, int]) -> list[str]:
    """The overrides for ``train.py``: the table, and where seconds x clips hardly changes its short form."""
    table = ", ".join(f"{length:g}: {clips}" for length, clips in clips_by_length.items())
    lines = [
        f'batching.batch_size=null batching.max_batch_duration_s=null "batching.clips_by_length={{{table}}}"'
    ]
    seconds = [length * clips for length, clips in clips_by_length.items()]
    if len(seconds) > 1 and min(seconds) > 0.85 * max(seconds):
        lines.append(f"batching.batch_size=null batching.max_batch_duration_s={math.floor(min(seconds))}")
    return lines


def chosen_lengths(words: str | None, longest: float) -> list[float]:
    """Seconds in rising order: those of ``--lengths``, else the usual ones up to the longest clip's."""
    if words is None:
        return [*(float(length) for length in LENGTHS if length < longest), float(math.ceil(longest))]
    try:
        lengths = sorted({float(word) for word in words.split(",")})
    except ValueError:
        lengths = []
    if not lengths or not 0.1 <= lengths[0] <= lengths[-1] < math.inf:
        raise UserError(f"--lengths {words}: give seconds of at least 0.1, such as --lengths 5,10,20")
    return lengths


@door
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--lengths", help="seconds, such as 5,10,20 (default: 2, 5, 10, 15, 20 and the longest clip)"
    )
    parser.add_argument("--memory-gb", type=float, help="that training may use (default: all of the GPU's)")
    config, options = config_and_options(parser)
    trainer = trainer_to_measure(config)
    prepared, device = trainer.train_loader.dataset, trainer.step.model.device  # with its index
    lengths = chosen_lengths(options.lengths, float(prepared.dataset.durations.max()))
    if options.memory_gb is None and device.type == "cpu":
        raise UserError("on a CPU say how much memory training may use, such as --memory-gb 4")
    if options.memory_gb is not None and not 0 < options.memory_gb < math.inf:
        raise UserError(f"--memory-gb {options.memory_gb}: give a number above 0")
    if device.type == "cuda":
        total = torch.cuda.get_device_properties(device).total_memory
        limit = SHARE * min(total, options.memory_gb * GB if options.memory_gb else total)
        torch.cuda.set_per_process_memory_fraction(limit / total, device)
    else:
        limit = SHARE * options.memory_gb * GB

    longer = stretch(prepared)
    found: dict[float, tuple[int, int]] = {}
    for seconds in progress_bar(lengths, unit="length"):
        on_cpu = StepsInChildren(config, seconds * longer)
        on_gpu = partial(memory_of_a_step, trainer, seconds * longer)
        try:
            found[seconds] = largest_batch(on_cpu if device.type == "cpu" else on_gpu, limit)
        finally:
            on_cpu.close()
    print(f"of {limit / SHARE / GB:.2f} GB on {device}, clips {longer:.2f} times longer by augmentation:")
    print("longest clip   clips   peak memory")
    for seconds, (clips, used) in found.items():
        print(f"{seconds:10g} s  {clips:6}   {used / GB:8.2f} GB" if clips else f"{seconds:10g} s    none")
    clips_by_length = {seconds: clips for seconds, (clips, _) in found.items() if clips}
    if len(clips_by_length) < len(found):
        print(
            "where there is none, leave such clips out with datasets.train.max_duration_s, or choose a smaller model"
        )
    if clips_by_length:
        print("\npaste behind train.py:\n  " + "\nor\n  ".join(settings(clips_by_length)))


if __name__ == "__main__":
    main()
