"""Measures what a corpus of ten million recordings costs before its first batch, on an index that is made up.

    python benchmarks/index_of_ten_million.py --rows 10000000

Prints the seconds of each step, and the most memory that the process has held until then. Pages of the mapped file
count in it, though the system takes them back when it needs them.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src.datasets import BucketBatchSampler, ShardsDataset
from src.datasets.index import write_index
from src.datasets.shard_index import BATCH_ROWS, INDEX_NAME, SHARD_SCHEMA
from src.utils.memory import peak_memory

SHARD_CLIPS = 2000  # recordings of a shard


def make_index(folder: Path, rows: int) -> None:
    """An index of so many clips of 1 to 20 s, without their shards."""
    shards = -(-rows // SHARD_CLIPS)
    names = [f"clips-{number:06d}.tar" for number in range(shards)]
    schema = SHARD_SCHEMA.with_metadata({"shards": str(names).replace("'", '"')})
    rng = np.random.default_rng(0)

    def batches() -> Iterator[pa.RecordBatch]:
        for start in range(0, rows, BATCH_ROWS):
            numbers = np.arange(start, min(rows, start + BATCH_ROWS))
            speakers, clips = (pa.array(values).cast("string") for values in (numbers % 997, numbers))
            ids = pc.binary_join_element_wise(speakers, clips, "-")
            seconds = rng.uniform(1, 20, len(numbers))
            sizes = (seconds * 16_000).astype(np.int64)
            columns = {
                "id": ids,
                "path": pc.binary_join_element_wise(ids, "flac", "."),
                "text": pc.binary_join_element_wise(
                    "somebody says about ten words, the ones of clip", ids, " "
                ),
                "duration_s": seconds,
                "speaker": speakers,
                "shard": (numbers // SHARD_CLIPS).astype(np.int32),
                "offset": 512 + np.cumsum(sizes) - sizes,
                "size": sizes,
            }
            yield pa.RecordBatch.from_pydict(columns, schema=schema)

    write_index(folder / INDEX_NAME, schema, batches())


def measure(folder: Path) -> None:
    with step("open the index"):
        dataset = ShardsDataset(str(folder), max_duration_s=20)
    with step("plan an epoch"):
        sampler = BucketBatchSampler(
            dataset.durations, max_batch_duration_s=200, shuffle=True, shards=dataset.shards
        )
    with step("the first 1000 batches"):
        batches = [batch for batch, _ in zip(sampler, range(1000), strict=False)]
    with step("1000 entries"):
        entries = [dataset.entry(row) for batch in batches for _, row in batch][:1000]
    print(f"{len(dataset)} clips, {len(sampler)} batches, {dataset.shards.max() + 1} shards; {entries[0].id}")


@contextmanager
def step(name: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    seconds = time.perf_counter() - started
    peak = peak_memory(torch.device("cpu")) / 2**30
    print(f"{name:24s} {seconds:7.2f} s   peak {peak:5.2f} GiB", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--opened", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.opened:
        with step("start Python"):
            pass
        measure(options.opened)
        return
    with tempfile.TemporaryDirectory() as folder:
        with step("make the index up"):
            make_index(Path(folder), options.rows)
        print(f"{(Path(folder) / INDEX_NAME).stat().st_size / 2**30:.2f} GiB; a process of its own opens it:")
        # Its peak is its own only in another process.
        subprocess.run([sys.executable, __file__, "--opened", folder], check=True)


if __name__ == "__main__":
    main()
