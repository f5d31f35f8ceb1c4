"""Draws the dev WER and the training loss of runs over their steps, side by side.

python scripts/plot_runs.py saved/a saved/b --out curves.png
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from matplotlib.figure import Figure

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src.utils.errors import UserError, door
from src.utils.files import check_output, written_whole


def curve(run: Path, name: str) -> tuple[list[int], list[float]]:
    """Steps and values of a scalar from the run's ``scalars.jsonl``."""
    file = run / "scalars.jsonl"
    if not file.is_file():
        raise UserError(f"{file}: missing; give the folder of a run that had writer=[local]")
    steps, values = [], []
    for number, line in enumerate(file.read_text(encoding="utf-8", errors="replace").split("\n"), start=1):
        try:
            record = json.loads(line) if line.strip() else {}
            if record.get(name) is not None:  # null stands for what was not finite
                steps.append(int(record["step"]))
                values.append(float(record[name]))
        except (ValueError, TypeError, KeyError, AttributeError):
            raise UserError(f"{file}:{number}: {line[:60]!r} is no record; remove the line") from None
    return steps, values


@door
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="a .png or .svg file")
    arguments = parser.parse_args()
    figure = Figure(figsize=(11, 4), layout="constrained")
    kinds = figure.canvas.get_supported_filetypes()
    if arguments.out.suffix.lower().lstrip(".") not in kinds:
        raise UserError(f"--out {arguments.out}: no kind of picture; end it in .png or .svg")
    check_output(arguments.out)
    loss, wer = figure.subplots(1, 2)
    for run in arguments.runs:
        loss.plot(*curve(run, "train/loss"), label=run.name, linewidth=0.8)
        steps, rates = curve(run, "dev/wer_greedy")
        wer.plot(steps, [100 * rate for rate in rates], label=run.name, marker=".")
    loss.set(title="training loss per token", xlabel="optimizer step", yscale="log")
    wer.set(title="dev WER, greedy (%)", xlabel="optimizer step", ylim=(0, 100))
    for axes in (loss, wer):
        axes.grid(alpha=0.3)
        axes.legend()
    with written_whole(arguments.out) as unfinished:
        figure.savefig(unfinished, format=arguments.out.suffix.lower().lstrip("."), dpi=120)
    print(f"drew {len(arguments.runs)} runs into {arguments.out}")


if __name__ == "__main__":
    main()
