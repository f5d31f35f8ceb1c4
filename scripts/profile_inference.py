"""Where the time and the memory of inference go: a table, OUT/profile.json and OUT/profile.png.

    python scripts/profile_inference.py checkpoints/demo samples --decoder beam --out outputs/profile_inference

Transcribes a folder of recordings (with audio/ in it, as for inference.py) once, and keeps no text.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src.datasets import BatchLimits, CustomDirDataset
from src.looking.inference_profiling import profile_inference
from src.recognizer import Recognizer
from src.utils.errors import UserError, door
from src.utils.profile_report import check_folder, columns, write_profile

BATCH_S = 240  # seconds of padded audio that a batch holds at most, as in inference.yaml


def table(result: dict[str, Any]) -> str:
    """The result in words and columns."""
    stages = {
        stage: (
            f"{1000 * part['s_per_audio_s']:.3f}",
            f"{part['share']:.1%}",
            f"{part['tensor_bytes'] / 1e6:.1f}",
        )
        for stage, part in result["stages"].items()
    }
    memory = {part: (f"{size / 1e6:.1f}",) for part, size in result["memory_bytes"].items()}
    return "\n".join(
        [
            *columns(["stage", "ms / audio", "share", "tensors MB"], stages),
            "",
            *columns(["memory", "MB"], memory),
            "",
            f"ms / audio: milliseconds of work for a second of audio; {result['threads']} "
            f"thread{'s' * (result['threads'] != 1)}",
            f"real-time factor {result['real_time_factor']:.4f} ({result['audio_s']:.0f} s of audio in "
            f"{result['wall_s']:.1f} s), without loading {result['real_time_factor_without_loading']:.4f}",
            f"{result['clips']} recording{'s' * (result['clips'] != 1)} in {result['batches']} "
            f"batch{'es' * (result['batches'] != 1)}, {result['padding_share']:.1%} padding, "
            f"{result['skipped']} skipped",
        ]
    )


@door
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", type=Path, help="a checkpoint directory or a run, of any family")
    parser.add_argument("data_dir", type=Path, help="a folder with audio/")
    parser.add_argument("--decoder", default="greedy", help="the search (default greedy)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda ... (default auto)")
    parser.add_argument("--batch-size", type=int, default=32, help="most recordings at once (default 32)")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("outputs/profile_inference"),
        help="folder for the two files (default: %(default)s)",
    )
    arguments = parser.parse_args()
    if arguments.batch_size < 1:
        raise UserError(f"--batch-size {arguments.batch_size}: give at least 1")
    check_folder(arguments.out)
    recognizer = Recognizer.load(arguments.checkpoint, arguments.decoder, arguments.device)
    dataset = CustomDirDataset(arguments.data_dir)
    limits = BatchLimits(arguments.batch_size, BATCH_S)
    result = {
        "checkpoint": str(arguments.checkpoint),
        "decoder": arguments.decoder,
        "data": dataset.name,
        "batch_size": arguments.batch_size,
        **profile_inference(recognizer, dataset, limits),
    }
    panels = {
        "ms for a second of audio": {
            stage: 1000 * part["s_per_audio_s"] for stage, part in result["stages"].items()
        },
        "tensors at once, MB": {
            stage: part["tensor_bytes"] / 1e6 for stage, part in result["stages"].items()
        },
    }
    title = (
        f"{type(recognizer.model).__name__}, {arguments.decoder}, on {result['device']}: "
        f"real-time factor {result['real_time_factor']:.4f}"
    )
    files = write_profile(arguments.out, result, panels, title)
    print(table(result))
    print(files)


if __name__ == "__main__":
    main()
