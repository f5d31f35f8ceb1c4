"""Seconds and memory that scripts/train_lm.py takes on so many megabytes of text: does it grow linearly?

    python -m benchmarks.lm_estimation novels.txt.gz --tokens checkpoints/demo --json lm_estimation.json

A word 3-gram and a 5-gram of the checkpoint's tokens, each in a process of its own, startup included.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from bisect import bisect_right
from itertools import accumulate
from pathlib import Path

from src.text_encoder.corpus import read_lines, text_files

ROOT = Path(__file__).parents[1]


def cost(*arguments: str) -> dict[str, float]:
    """Seconds, and most memory in GB, of a script of the clone."""
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *arguments], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(arguments)}: exit {process.returncode}")
    unit = 1e9 if sys.platform == "darwin" else 1e6
    return {"seconds": round(time.perf_counter() - started, 1), "gb": round(usage.ru_maxrss / unit, 2)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("text", type=Path)
    parser.add_argument("--tokens", type=Path, default=ROOT / "checkpoints" / "demo")
    parser.add_argument("--megabytes", type=float, nargs="+", default=[10, 20, 30])
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    lines = [line for file in text_files(arguments.text) for line in read_lines(file)]
    sizes = list(accumulate(len(line.encode()) for line in lines))
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for megabytes in arguments.megabytes:
            part = lines[: bisect_right(sizes, megabytes * 1e6)]
            text = Path(folder) / "text.txt"
            text.write_text("\n".join(line.rstrip("\n") for line in part), encoding="utf-8")
            for kind, options in {
                "word 3-gram": ("--order", "3"),
                "token 5-gram": ("--order", "5", "--tokens", str(arguments.tokens)),
            }.items():
                out = str(Path(folder) / "lm.safetensors")
                measured = cost("scripts/train_lm.py", str(text), *options, "--out", out)
                rows.append({"kind": kind, "megabytes": round(text.stat().st_size / 1e6, 1), **measured})
                print(
                    f"{kind:12} {rows[-1]['megabytes']:5} MB  {measured['seconds']:6} s  {measured['gb']:5} GB"
                )
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
