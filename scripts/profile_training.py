"""Where the time and the memory of training go: a table, OUT/profile.json and OUT/profile.png.

    python scripts/profile_training.py -cn=conformer_ctc datasets=librispeech --out outputs/profile

Takes some real optimizer steps of the config (as for train.py) and keeps nothing of them.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src.trainer import trainer_to_measure
from src.trainer.profiling import profile
from src.utils.errors import UserError, door
from src.utils.hydra_door import config_and_options
from src.utils.profile_report import check_folder, columns, write_profile


def table(result: dict[str, Any]) -> str:
    """The result in words and columns."""
    stages = {
        stage: (f"{1000 * times['s_per_step']:.2f}", f"{times['share']:.1%}")
        for stage, times in result["stages"].items()
    }
    memory = {part: (f"{size / 1e6:.1f}",) for part, size in result["memory_bytes"].items()}
    lines = [*columns(["stage", "ms a step", "share"], stages), "", *columns(["memory", "MB"], memory)]
    idle = result["gpu_idle_share"]
    idle = f"unknown ({result['gpu_idle_unknown_because']})" if idle is None else f"{idle:.1%}"
    padding = result["padding_share"]
    lines += [
        "",
        f"{result['audio_s_per_s']:.1f} s of audio a second, {'no' if padding is None else f'{padding:.1%}'} "
        f"padding, GPU idle: {idle}",
        f"the loader alone: {result['audio_s_per_s_of_the_loader_alone']:.0f} s of audio a second, training without "
        f"waiting for it: {result['audio_s_per_s_without_the_loader']:.1f}",
    ]
    return "\n".join(lines)


@door
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--steps", type=int, default=20, help="optimizer steps that are measured (default 20)"
    )
    parser.add_argument("--out", type=Path, default=Path("outputs/profile"), help="folder for the two files")
    config, options = config_and_options(parser)
    if options.steps < 1:
        raise UserError(f"--steps {options.steps}: give at least 1")
    check_folder(options.out)
    result = {
        "config": options.config_name,
        "overrides": options.overrides,
        **profile(trainer_to_measure(config), options.steps),
    }
    panels = {
        "ms a step": {stage: 1000 * times["s_per_step"] for stage, times in result["stages"].items()},
        "memory, MB": {part: size / 1e6 for part, size in result["memory_bytes"].items()},
    }
    title = f"{options.config_name} on {result['device']}, {result['precision']}"
    files = write_profile(options.out, result, panels, title)
    print(table(result))
    print(files)


if __name__ == "__main__":
    main()
