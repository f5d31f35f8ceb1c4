"""Where the time and the memory of training go: a table, OUT/profile.json and OUT/profile.png.

    python scripts/profile_training.py -cn=conformer_ctc datasets=librispeech --out outputs/profile

Takes some real optimizer steps of the config (as for train.py) and keeps nothing of them.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src.trainer import trainer_to_measure
from src.trainer.profiling import profile
from src.utils.errors import UserError, door
from src.utils.files import check_output, written_whole
from src.utils.hydra_door import config_and_options
from src.utils.plots import bars_figure


def table(result: dict[str, Any]) -> str:
    """The result in words and columns."""
    lines = [f"{'stage':32}{'ms a step':>10}{'share':>9}"]
    for stage, times in result["stages"].items():
        lines.append(f"{stage:32}{1000 * times['s_per_step']:10.2f}{times['share']:9.1%}")
    lines += ["", f"{'memory':32}{'MB':>10}"]
    lines += [f"{part:32}{size / 1e6:10.1f}" for part, size in result["memory_bytes"].items()]
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
    files = options.out / "profile.json", options.out / "profile.png"
    for file in files:
        check_output(file)
    result = {
        "config": options.config_name,
        "overrides": options.overrides,
        **profile(trainer_to_measure(config), options.steps),
    }
    picture = bars_figure(
        {
            "ms a step": {stage: 1000 * times["s_per_step"] for stage, times in result["stages"].items()},
            "memory, MB": {part: size / 1e6 for part, size in result["memory_bytes"].items()},
        },
        f"{options.config_name} on {result['device']}, {result['precision']}",
    )
    with written_whole(files[0]) as unfinished:
        unfinished.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    with written_whole(files[1]) as unfinished:
        picture.savefig(unfinished, format="png", dpi=110)
    print(table(result))
    print(f"files: {files[0]} and {files[1]}")


if __name__ == "__main__":
    main()
