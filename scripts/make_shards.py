"""Writes a corpus as shards: a few large tar files that are read, copied and served in one piece.

    python scripts/make_shards.py --out data/shards/train data_dir=data/my_train
    python scripts/make_shards.py --out data/shards/train datasets=librispeech split=train

What to read is said as for inference.py. Every recording becomes 16 bit at 16 kHz, mono: flac, or wav
(`--format wav`: twice the size, and reading is a copy instead of decoding). A command that was stopped goes on
where it was; the index is written last. What cannot be read is left out, and named at the end.
"""

from __future__ import annotations

import argparse
import io
import math
import os
import shutil
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src.datasets import Entry, Skipped, SpeechDataset, recordings_of
from src.datasets.index import Index, checked_id
from src.datasets.shard_index import INDEX_NAME, merge, write_piece
from src.datasets.tar_shards import add_member, finish
from src.utils.audio import SAMPLE_RATE
from src.utils.errors import UserError, door
from src.utils.hydra_door import compose
from src.utils.progress import progress_bar

TOGETHER = 64  # recordings that are encoded at a time

Clip = tuple[Entry, float, bytes]  # with its seconds and its file


def encoded(dataset: SpeechDataset, kind: str, row: int) -> Clip | Skipped:
    """One recording as the content of a file. 16-bit samples stay as they are."""
    entry = Entry(f"row {row}", dataset.name)
    try:
        entry = dataset.entry(row)
        checked_id(entry.id, entry.path)
        audio = dataset[row].audio
    except UserError as error:
        return Skipped(entry.id, entry.path, str(error))
    samples = np.clip(np.rint(audio * 32768.0), -32768, 32767).astype(np.int16)
    content = io.BytesIO()
    soundfile.write(content, samples, SAMPLE_RATE, format=kind.upper(), subtype="PCM_16")
    return entry, len(audio) / SAMPLE_RATE, content.getvalue()


def clips(dataset: SpeechDataset, kind: str, first: int) -> Iterator[Clip | Skipped]:
    """All recordings from the row ``first`` on, in order."""
    with ThreadPoolExecutor() as pool:
        for start in range(first, len(dataset), TOGETHER):
            yield from pool.map(
                partial(encoded, dataset, kind), range(start, min(start + TOGETHER, len(dataset)))
            )


def write_shard(file: Path, kind: str, shard_bytes: int, coming: Iterator[Clip | Skipped]) -> Index:
    """Fills one shard with what is coming, and writes its piece of the index beside it when it is whole."""
    unfinished = file.with_name(f".{file.name}.part")
    rows: list[dict[str, Any]] = []
    skipped: list[Skipped] = []
    with unfinished.open("wb") as shard:
        for clip in coming:
            if isinstance(clip, Skipped):
                skipped.append(clip)
                continue
            entry, seconds, content = clip
            path = f"{entry.id}.{kind}"
            offset = add_member(shard, path, content)
            row = {"id": entry.id, "path": path, "text": entry.text, "speaker": entry.speaker}
            rows.append(row | {"duration_s": seconds, "offset": offset, "size": len(content)})
            if entry.text is not None:
                add_member(shard, f"{entry.id}.txt", entry.text.encode())
            if shard.tell() >= shard_bytes:
                break
        finish(shard)
    os.replace(unfinished, file)
    write_piece(piece_of(file), rows, skipped)
    return Index(piece_of(file))


def piece_of(shard: Path) -> Path:
    return shard.parent / ".pieces" / f"{shard.stem}.arrow"


def make_shards(dataset: SpeechDataset, out: Path, kind: str, shard_bytes: int) -> list[Index]:
    """Writes what is not there yet; returns the pieces of the index, whose rows are the data set's in order.

    Raises ``UserError`` when ``out`` holds other shards.
    """
    if (out / INDEX_NAME).exists():
        raise UserError(f"--out {out}: there are shards already; remove them or choose another folder")
    (out / ".pieces").mkdir(parents=True, exist_ok=True)
    source = out / ".pieces" / "source.txt"
    settings = f"{dataset.name} {len(dataset)} {dataset.durations.sum():.3f} {kind} {shard_bytes}"
    if source.exists() and source.read_text(encoding="utf-8") != settings:
        raise UserError(f"--out {out}: holds a part of other shards; remove it or choose another folder")
    source.write_text(settings, encoding="utf-8")
    pieces: list[Index] = []
    name = out.resolve().name
    done = 0
    while piece_of(shard := out / f"{name}-{len(pieces):06d}.tar").exists():
        pieces.append(Index(piece_of(shard)))
        done += len(pieces[-1]) + len(pieces[-1].skipped)
    bar = progress_bar(total=len(dataset), initial=done, desc=f"shards of {name}", unit="clip")
    coming = clips(dataset, kind, done)
    while done < len(dataset):
        pieces.append(write_shard(out / f"{name}-{len(pieces):06d}.tar", kind, shard_bytes, coming))
        made = len(pieces[-1]) + len(pieces[-1].skipped)
        done += made
        bar.update(made)
    bar.close()
    names = [f"{name}-{number:06d}.tar" for number in range(len(pieces))]
    merge([piece.file for piece in pieces], names, out / INDEX_NAME)
    shutil.rmtree(out / ".pieces")
    return pieces


@door
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "settings", nargs="+", metavar="KEY=VALUE", help="data_dir=DIR, or datasets=NAME split=NAME"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the shards, which get its name")
    parser.add_argument("--shard-mb", type=float, default=256, help="size of a shard in MiB")
    parser.add_argument("--format", choices=("flac", "wav"), default="flac")
    options = parser.parse_args()
    if not 0 < options.shard_mb < math.inf:
        raise UserError(f"--shard-mb {options.shard_mb}: must be above 0, and finite")
    # inference.py's config says what to read; what else it asks for has no meaning here.
    config = compose("inference", ["checkpoint=none", "save_dir=none", *options.settings])
    dataset = recordings_of(config)
    if not len(dataset):
        raise UserError(f"{dataset.name}: no recordings to write ({len(dataset.skipped)} cannot be read)")
    pieces = make_shards(dataset, options.out, options.format, round(options.shard_mb * 2**20))
    skipped = [*dataset.skipped, *(item for piece in pieces for item in piece.skipped)]
    for item in skipped:
        print(f"skipped {item.id}: {item.reason}")
    count, hours = sum(map(len, pieces)), sum(piece.durations.sum() for piece in pieces) / 3600
    left_out = f", {len(skipped)} recordings skipped" if skipped else ""
    if not count:
        raise UserError(f"{dataset.name}: none of its recordings could be read; the lines above say why")
    print(f"made {options.out}: {count} clips, {hours:.2f} h in {len(pieces)} shards{left_out}")
    print(
        f"train on it: python train.py -cn=conformer_ctc datasets=shards datasets.train.shards={options.out} "
        f"datasets.dev.shards=DEV_SHARDS"
    )


if __name__ == "__main__":
    main()
