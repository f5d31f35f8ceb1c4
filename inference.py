"""Transcribes a folder: ``python inference.py checkpoint=DIR data_dir=DIR save_dir=DIR decoder=NAME``.

Writes ``save_dir/ID.txt`` as it goes. A recording that cannot be read is named at the end and costs nothing else.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from src.checkpoint import WEIGHTS, Checkpoint, find_checkpoint
from src.datasets import (
    BatchLimits,
    BucketBatchSampler,
    PreparedDataset,
    Skipped,
    SpeechDataset,
    build_loader,
    recordings_of,
)
from src.datasets.index import file_version
from src.recognizer import Recognizer, Transcript
from src.transcript_folder import TranscriptFolder
from src.utils.audio import SAMPLE_RATE
from src.utils.build import Flag, Positive, Text, Whole, build_settings, check_fields
from src.utils.errors import UserError
from src.utils.hydra_door import hydra_door
from src.utils.progress import progress_bar


@dataclass(frozen=True)
class InferenceOptions:
    """The plain settings of ``src/configs/inference.yaml``, where each is explained."""

    checkpoint: Text
    save_dir: Text
    data_dir: Text | None
    references_dir: Text | None
    split: Text
    words_dir: Text | None
    decoder: Text
    longest_s: Positive | None
    times_from: Text | None
    device: Text
    resume: Flag
    num_workers: Whole

    def __post_init__(self) -> None:
        check_fields(self)
        if self.times_from is not None and self.words_dir is None:
            raise UserError(
                f"times_from={self.times_from}: no words are written without a words_dir; give one"
            )
        if self.words_dir is not None and Path(self.words_dir).resolve() == Path(self.save_dir).resolve():
            raise UserError(f"words_dir={self.words_dir} is the texts' own folder; choose another")


@hydra_door(default="inference")
def main(config: DictConfig) -> None:
    options = InferenceOptions(**{field.name: config.get(field.name) for field in fields(InferenceOptions)})
    save_dir = Path(options.save_dir)
    references_dir = None if options.references_dir is None else Path(options.references_dir)
    keep_off_the_true_texts("save_dir", save_dir, references_dir, config)
    if options.words_dir is not None:
        keep_off_the_true_texts("words_dir", Path(options.words_dir), references_dir, config)
    limits = build_settings(BatchLimits, config.batching, "batching")
    checkpoint = Checkpoint.open(options.checkpoint)
    search_settings = OmegaConf.to_container(config.search, resolve=True)
    recognizer = Recognizer.load(
        checkpoint.path, options.decoder, options.device, search_settings, options.times_from
    )
    if options.words_dir is not None and not (recognizer.model.tells_times or options.times_from):
        raise UserError(
            f"words_dir={options.words_dir}: a {type(recognizer.model).__name__} does not tell when words were said; "
            "add times_from=CHECKPOINT, one with CTC, such as checkpoints/demo"
        )
    recognizer.try_out()  # what does not fit is said now, not between a progress bar and the first text
    dataset = recordings_of(config)
    if len(dataset) == 0 and not dataset.skipped:
        raise UserError(f"{dataset.name}: no recordings found; check its folder and its limits")
    if references_dir is not None:
        write_references(dataset, TranscriptFolder(references_dir, "references_dir"))
    settings = checkpoint.search_settings(options.decoder) | search_settings
    made_with = (
        checkpoint.fingerprint(),
        config.decoder,
        settings,
        [*dates_of_models(settings)],
        dataset.name,
        options.longest_s,
        options.times_from and Checkpoint.open(options.times_from).fingerprint(),
    )
    folders = [TranscriptFolder(save_dir)]
    if options.words_dir is not None:
        folders.append(TranscriptFolder(Path(options.words_dir), "words_dir"))
    written, skipped = transcribe(dataset, recognizer, folders, repr(made_with), limits, options)
    print(f"{written} transcripts in {save_dir}")
    for item in skipped:
        print(f"skipped {item.id}: {item.reason}")
    if skipped:
        print(f"{len(skipped)} of {written + len(skipped)} recordings were skipped")
    if skipped and not written:
        raise UserError(
            f"{dataset.name}: none of its recordings could be transcribed; the lines above say why"
        )


def write_references(dataset: SpeechDataset, folder: TranscriptFolder) -> None:
    """Writes the data set's own texts; names those that cannot be written."""
    for utterance_id, text in zip(dataset.ids, dataset.texts, strict=True):
        if text is not None:
            try:
                folder.write(utterance_id, text)
            except UserError as error:
                print(f"no reference of {utterance_id}: {error}")


def transcribe(
    dataset: SpeechDataset,
    recognizer: Recognizer,
    folders: list[TranscriptFolder],
    made_with: str,
    limits: BatchLimits,
    options: InferenceOptions,
) -> tuple[int, list[Skipped]]:
    """Writes a text for every recording into the first of the folders, and the words into the second, if there is one;
    returns how many there are now and which were left out.

    Raises ``UserError`` when nothing can be written to a folder.
    """
    for item in dataset.skipped:
        for folder in folders:
            with suppress(UserError):
                folder.remove(item.id)
    stamps = {
        utterance_id: hashlib.blake2b(
            f"{made_with} {dataset.version(row)}".encode(), digest_size=8
        ).hexdigest()
        for row, utterance_id in enumerate(dataset.ids)
    }
    missing, refused = set(), {}
    for folder in folders:
        missing_here, refused_here = folder.claim(stamps, options.resume)
        missing |= set(missing_here)
        refused |= refused_here
    wanted = [utterance_id for utterance_id in stamps if utterance_id in missing - refused.keys()]
    if not wanted and stamps:
        print(f"all {len(stamps) - len(refused)} were there already")
    skipped = [*dataset.skipped, *(Skipped(i, "", reason) for i, reason in refused.items())]
    written = len(stamps) - len(wanted) - len(refused)
    rows = {utterance_id: row for row, utterance_id in enumerate(dataset.ids)}
    remaining = dataset.select([rows[utterance_id] for utterance_id in wanted])
    # The sampler begins with the longest clips, so memory runs out at once or never.
    sampler = BucketBatchSampler(remaining.durations, **vars(limits))
    loader = build_loader(PreparedDataset(remaining), sampler, options.num_workers)
    audio_s, started = 0.0, time.monotonic()
    with progress_bar(total=len(remaining), desc=options.decoder, unit="clip") as bar:
        for batch in loader:
            skipped += batch["skipped"]
            bar.update(len(batch["skipped"]))
            if "audio" not in batch:
                continue
            transcripts, too_long = recognizer.recognize_in_memory(batch, options.longest_s)
            skipped += [
                Skipped(i, "", f"its {seconds:.0f} s do not fit into the memory; cut it into pieces")
                for i, seconds in too_long.items()
            ]
            for transcript in transcripts:
                try:
                    for folder, content in zip(
                        folders, (transcript.text, time_marks(transcript)), strict=False
                    ):
                        folder.write(transcript.id, content)
                    written += 1
                except UserError as error:
                    skipped.append(Skipped(transcript.id, "", str(error)))
            bar.update(len(batch["utterance_id"]))
            audio_s += float(batch["audio_lengths"].sum()) / SAMPLE_RATE
    seconds = time.monotonic() - started
    if audio_s:
        print(f"real-time factor {seconds / audio_s:.4f} ({audio_s:.0f} s of audio in {seconds:.1f} s)")
    return written, skipped


def time_marks(transcript: Transcript) -> str:
    """The words as NIST's CTM has them: id, channel, start and duration in s, word, confidence.

    >>> time_marks(Transcript("a", "go on", [("go", 0.2, 0.36, 0.987), ("on", 0.4, 0.6, 1.0)]))
    'a 1 0.200 0.160 go 0.987\\na 1 0.400 0.200 on 1.000'
    """
    return "\n".join(
        f"{transcript.id} 1 {start:.3f} {end - start:.3f} {word} {confidence:.3f}"
        for word, start, end, confidence in transcript.words
    )


def dates_of_models(settings: object) -> Iterator[tuple | None]:
    """Size and date of every language model that a search's settings name: another one makes other transcripts."""
    if isinstance(settings, dict) and isinstance(lm := settings.get("lm"), str):
        yield file_version(str(find_checkpoint(lm) / WEIGHTS) if os.path.isdir(lm) else lm)
    if isinstance(settings, dict | list):
        for value in settings.values() if isinstance(settings, dict) else settings:
            yield from dates_of_models(value)


def keep_off_the_true_texts(key: str, path: Path, references_dir: Path | None, config: DictConfig) -> None:
    """What is written into a folder of true transcripts replaces them, or is taken for them later."""
    folders = list(text_folders(OmegaConf.to_container(config.datasets)))
    for folder in folders if references_dir is None else [*folders, references_dir]:
        if path.resolve().is_relative_to(folder.resolve()):
            raise UserError(f"{key}={path} lies in {folder}, the true transcripts; choose another {key}")


def text_folders(node: object) -> Iterator[Path]:
    """Every folder of transcripts that the data sets of a config name."""
    for key, value in node.items() if isinstance(node, dict) else ():
        if key == "transcriptions_dir" and value is not None:
            yield Path(str(value))
        elif key == "data_dir" and value is not None:
            yield Path(str(value)) / "transcriptions"
        else:
            yield from text_folders(value)


if __name__ == "__main__":
    main()
