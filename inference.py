"""Transcribes a folder: ``python inference.py checkpoint=DIR data_dir=DIR save_dir=DIR decoder=NAME``.

Writes ``save_dir/ID.txt`` as it goes. A recording that cannot be read is named at the end and costs nothing else.
"""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from tqdm import tqdm

from src.checkpoint import WEIGHTS, Checkpoint
from src.datasets import BucketBatchSampler, PreparedDataset, Skipped, build_loader
from src.recognizer import Recognizer
from src.utils.audio import SAMPLE_RATE
from src.utils.build import build
from src.utils.errors import UserError
from src.utils.hydra_door import hydra_door

ORIGIN = ".origin"  # in save_dir: which weights and search its texts are of


@hydra_door(default="inference")
def main(config: DictConfig) -> None:
    recognizer = Recognizer.load(
        config.checkpoint, config.decoder, config.device, OmegaConf.to_container(config.search, resolve=True)
    )
    if config.datasets.get(config.split) is None:
        known = ", ".join(config.datasets)
        raise UserError(f"split={config.split} is not in this datasets config; choose one of: {known}")
    dataset = build(config.datasets[config.split])
    if len(dataset) == 0 and not dataset.skipped:
        raise UserError(f"data_dir={config.data_dir}: no recordings found")
    if config.references_dir is not None:
        for utterance_id, text in zip(dataset.ids, dataset.texts, strict=True):
            if text is not None:
                write_text(Path(config.references_dir) / f"{utterance_id}.txt", text)
    save_dir = Path(config.save_dir)
    written, skipped = transcribe(dataset, recognizer, save_dir, config)
    print(f"{written} transcripts in {save_dir}")
    for item in skipped:
        print(f"skipped {item.id}: {item.reason}")
    if skipped:
        print(f"{len(skipped)} of {written + len(skipped)} recordings were skipped")
    if skipped and not written:
        raise UserError(f"data_dir={config.data_dir}: none of its recordings could be transcribed")


def transcribe(
    dataset, recognizer: Recognizer, save_dir: Path, config: DictConfig
) -> tuple[int, list[Skipped]]:
    """Writes a text for every recording; returns how many there are now and which were left out."""
    done = set()
    if config.resume and _same_origin(save_dir, config):
        done = {i for i in dataset.ids if (save_dir / f"{i}.txt").is_file()}
    write_text(save_dir / ORIGIN, _origin(config))
    remaining = dataset.select(
        [row for row, utterance_id in enumerate(dataset.ids) if utterance_id not in done]
    )
    # The sampler begins with the longest clips, so memory runs out at once or never.
    sampler = BucketBatchSampler(remaining.durations, **config.batching)
    loader = build_loader(PreparedDataset(remaining), sampler, config.num_workers)
    skipped = list(dataset.skipped)
    written, audio_s, started = len(done), 0.0, time.monotonic()
    with tqdm(total=len(remaining), desc=config.decoder, unit="clip") as bar:
        for batch in loader:
            skipped += batch["skipped"]
            bar.update(len(batch["skipped"]))
            if "audio" not in batch:
                continue
            for transcript in recognizer.recognize(batch):
                write_text(save_dir / f"{transcript.id}.txt", transcript.text)
                written += 1
            bar.update(len(batch["utterance_id"]))
            audio_s += float(batch["audio_lengths"].sum()) / SAMPLE_RATE
    seconds = time.monotonic() - started
    if audio_s:
        print(f"real-time factor {seconds / audio_s:.4f} ({audio_s:.0f} s of audio in {seconds:.1f} s)")
    return written, skipped


def _same_origin(save_dir: Path, config: DictConfig) -> bool:
    """Whether the texts in ``save_dir`` are of this checkpoint and search; says so when they are not."""
    file = save_dir / ORIGIN
    if not file.is_file():
        return False
    same = file.read_text(encoding="utf-8").strip() == _origin(config)
    if not same:
        print(
            f"the texts in {save_dir} are of another checkpoint or search; transcribing all recordings again"
        )
    return same


def _origin(config: DictConfig) -> str:
    """Names the weights (by content) and the search."""
    weights = Checkpoint.open(config.checkpoint).path / WEIGHTS
    digest = hashlib.sha256()
    with weights.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return f"{digest.hexdigest()} {config.decoder} {OmegaConf.to_container(config.search)}"


def write_text(path: Path, text: str) -> None:
    """Complete or not at all, so that resume=true can trust what is there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.unfinished")
    unfinished.write_text(text + "\n", encoding="utf-8")
    os.replace(unfinished, path)


if __name__ == "__main__":
    main()
