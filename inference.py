"""Transcribes a folder: ``python inference.py checkpoint=DIR data_dir=DIR save_dir=DIR decoder=NAME``.

Writes ``save_dir/ID.txt`` as it goes. A recording that cannot be read is named at the end and costs nothing else.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from tqdm import tqdm

from src.checkpoint import CARD, Checkpoint
from src.datasets import BucketBatchSampler, PreparedDataset, Skipped, SpeechDataset, build_loader
from src.recognizer import Recognizer, Transcript
from src.utils.audio import SAMPLE_RATE
from src.utils.build import build
from src.utils.errors import UserError
from src.utils.hydra_door import hydra_door

ORIGIN = ".origin"  # in save_dir: id -> what its text was made from
OUT_OF_MEMORY = re.compile("out of memory|allocate memory|alloc_failed|tried to allocate", re.IGNORECASE)


@hydra_door(default="inference")
def main(config: DictConfig) -> None:
    save_dir = Path(str(config.save_dir))
    references_dir = None if config.references_dir is None else Path(str(config.references_dir))
    _keep_off_the_true_texts(save_dir, references_dir, config)
    config.checkpoint = str(config.checkpoint)
    recognizer = Recognizer.load(
        config.checkpoint, config.decoder, config.device, OmegaConf.to_container(config.search, resolve=True)
    )
    if config.datasets.get(config.split) is None:
        known = ", ".join(config.datasets)
        raise UserError(f"split={config.split} is not in this datasets config; choose one of: {known}")
    dataset = build(config.datasets[config.split])
    if len(dataset) == 0 and not dataset.skipped:
        raise UserError(f"data_dir={config.data_dir}: no recordings found")
    if references_dir is not None:
        write_references(dataset, references_dir)
    written, skipped = transcribe(dataset, recognizer, save_dir, config)
    print(f"{written} transcripts in {save_dir}")
    for item in skipped:
        print(f"skipped {item.id}: {item.reason}")
    if skipped:
        print(f"{len(skipped)} of {written + len(skipped)} recordings were skipped")
    if skipped and not written:
        raise UserError(f"data_dir={config.data_dir}: none of its recordings could be transcribed")


def write_references(dataset: SpeechDataset, folder: Path) -> None:
    """Writes the data set's own texts; names those that cannot be written."""
    _make_folder("references_dir", folder)
    for utterance_id, text in zip(dataset.ids, dataset.texts, strict=True):
        if text is not None:
            try:
                write_text(folder, utterance_id, text)
            except UserError as error:
                print(f"no reference of {utterance_id}: {error}")


def transcribe(
    dataset: SpeechDataset, recognizer: Recognizer, save_dir: Path, config: DictConfig
) -> tuple[int, list[Skipped]]:
    """Writes a text for every recording; returns how many there are now and which were left out.

    Raises ``UserError`` when nothing can be written to ``save_dir``.
    """
    _make_folder("save_dir", save_dir)
    rows, skipped = _prepare(dataset, save_dir, config)
    written = len(dataset) - len(rows) - len(skipped)
    skipped += dataset.skipped
    remaining = dataset.select(rows)
    # The sampler begins with the longest clips, so memory runs out at once or never.
    sampler = BucketBatchSampler(remaining.durations, **config.batching)
    loader = build_loader(PreparedDataset(remaining), sampler, config.num_workers)
    audio_s, started = 0.0, time.monotonic()
    with tqdm(total=len(remaining), desc=config.decoder, unit="clip") as bar:
        for batch in loader:
            skipped += batch["skipped"]
            bar.update(len(batch["skipped"]))
            if "audio" not in batch:
                continue
            transcripts, too_long = recognize(recognizer, batch)
            skipped += too_long
            for transcript in transcripts:
                try:
                    write_text(save_dir, transcript.id, transcript.text)
                    written += 1
                except UserError as error:
                    skipped.append(Skipped(transcript.id, "", str(error)))
            bar.update(len(batch["utterance_id"]))
            audio_s += float(batch["audio_lengths"].sum()) / SAMPLE_RATE
    seconds = time.monotonic() - started
    if audio_s:
        print(f"real-time factor {seconds / audio_s:.4f} ({audio_s:.0f} s of audio in {seconds:.1f} s)")
    return written, skipped


def recognize(recognizer: Recognizer, batch: dict) -> tuple[list[Transcript], list[Skipped]]:
    """A batch that does not fit into the memory is halved; a single clip that does not is skipped."""
    try:
        return recognizer.recognize(batch), []
    except (RuntimeError, MemoryError) as error:  # CUDA's and the CPU's allocators raise RuntimeErrors
        if not isinstance(error, MemoryError) and not OUT_OF_MEMORY.search(str(error)):
            raise
    ids, lengths = batch["utterance_id"], batch["audio_lengths"]
    if len(ids) == 1:
        reason = f"its {int(lengths[0]) / SAMPLE_RATE:.0f} s do not fit into the memory; cut it into pieces"
        return [], [Skipped(ids[0], "", reason)]
    transcripts, skipped = [], []
    for half in (slice(len(ids) // 2), slice(len(ids) // 2, None)):
        audio = batch["audio"][half, : int(lengths[half].max())]
        part = {"utterance_id": ids[half], "audio": audio, "audio_lengths": lengths[half]}
        found, too_long = recognize(recognizer, part)
        transcripts += found
        skipped += too_long
    return transcripts, skipped


def _prepare(dataset: SpeechDataset, save_dir: Path, config: DictConfig) -> tuple[list[int], list[Skipped]]:
    """The rows to transcribe, without texts of earlier runs, and the recordings whose text has no place.

    With ``resume`` a text stays when it was made from the same recording, weights and search. The order
    (remove, note the origin, transcribe) lets a run be killed anywhere.
    """
    file = save_dir / ORIGIN
    old = _read_origin(file)
    ids, stamps = dataset.ids, _stamps(dataset, config)
    rows, skipped, stale = [], [], 0
    for item in dataset.skipped:
        with suppress(UserError):
            _remove_text(save_dir, item.id)
    for row, (utterance_id, stamp) in enumerate(zip(ids, stamps, strict=True)):
        try:
            text = _text_file(save_dir, utterance_id)
            with _one_text():
                there = text.is_file()
            if config.resume and there:
                if old.get(utterance_id) == stamp:
                    continue
                stale += 1
            _remove_text(save_dir, utterance_id)
            rows.append(row)
        except UserError as error:
            skipped.append(Skipped(utterance_id, dataset.entry(row).path, str(error)))
    if stale:
        print(
            f"{stale} texts in {save_dir} are of another checkpoint or search, or of other recordings; "
            "transcribing them again"
        )
    try:
        _write(file, json.dumps(old | dict(zip(ids, stamps, strict=True))))
    except OSError as error:
        raise UserError(f"{file}: cannot be written ({error.strerror}); choose another save_dir") from None
    return rows, skipped


def _read_origin(file: Path) -> dict[str, str]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # none yet, or damaged: nothing is known of the texts
        return {}
    return content if isinstance(content, dict) else {}


def _stamps(dataset: SpeechDataset, config: DictConfig) -> list[str]:
    """Of every row a hash of the recording (path, size, date), the checkpoint's content and the search."""
    checkpoint = hashlib.sha256()
    for part in sorted(Checkpoint.open(config.checkpoint).path.iterdir()):
        if part.is_file() and part.name != CARD:
            with part.open("rb") as file:
                while chunk := file.read(1 << 20):
                    checkpoint.update(chunk)
    search = (checkpoint.hexdigest(), config.decoder, OmegaConf.to_container(config.search), dataset.name)
    common = hashlib.blake2b(repr(search).encode(), digest_size=8)
    stamps = []
    for row in range(len(dataset)):
        path = dataset.entry(row).path
        try:
            status = os.stat(path)
            recording = (path, status.st_size, status.st_mtime_ns)
        except (OSError, ValueError):  # a row of a table, or a name that no file can have
            recording = (path,)
        stamp = common.copy()
        stamp.update(repr(recording).encode())
        stamps.append(stamp.hexdigest())
    return stamps


def _keep_off_the_true_texts(save_dir: Path, references_dir: Path | None, config: DictConfig) -> None:
    """What is written into a folder of true transcripts replaces them, or is taken for them later."""
    folders = list(_text_folders(OmegaConf.to_container(config.datasets)))
    for folder in folders if references_dir is None else [*folders, references_dir]:
        if save_dir.resolve().is_relative_to(folder.resolve()):
            raise UserError(
                f"save_dir={save_dir} lies in {folder}, the true transcripts; choose another save_dir"
            )


def _text_folders(node: object) -> Iterator[Path]:
    """Every folder of transcripts that the data sets of a config name."""
    for key, value in node.items() if isinstance(node, dict) else ():
        if key == "transcriptions_dir" and value is not None:
            yield Path(str(value))
        elif key == "data_dir" and value is not None:
            yield Path(str(value)) / "transcriptions"
        else:
            yield from _text_folders(value)


def _make_folder(key: str, folder: Path) -> None:
    """Raises ``UserError`` when nothing can be written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise UserError(f"{key}={folder}: cannot be written to ({error.strerror}); choose another") from None


@contextmanager
def _one_text() -> Iterator[None]:
    """What keeps one text from being written or removed is no reason to stop: one line that names it."""
    try:
        yield
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"its text cannot be written ({reason}); rename it or clear its place") from None


def _text_file(folder: Path, utterance_id: str) -> Path:
    """Where a text belongs. Raises ``UserError`` for a name that no file can have or that leads elsewhere."""
    with _one_text():
        file = folder / f"{utterance_id}.txt"
        if not file.parent.resolve().is_relative_to(folder.resolve()):
            raise ValueError(f"{file} is not below {folder}")
        return file


def _remove_text(folder: Path, utterance_id: str) -> None:
    file = _text_file(folder, utterance_id)
    with _one_text():
        file.unlink(missing_ok=True)


def write_text(folder: Path, utterance_id: str, text: str) -> None:
    """``folder/ID.txt``. Raises ``UserError`` when it cannot be written."""
    file = _text_file(folder, utterance_id)
    with _one_text():
        _write(file, text)


def _write(file: Path, text: str) -> None:
    """Complete or not at all, so that resume=true can trust what is there."""
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_name(f".{os.getpid()}.unfinished")  # short, whatever the id's length
    unfinished.write_text(text + "\n", encoding="utf-8")
    os.replace(unfinished, file)


if __name__ == "__main__":
    main()
