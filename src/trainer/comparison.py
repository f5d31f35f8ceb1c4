"""Runs side by side: a table of their best checkpoints, and a picture of their curves."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from src.checkpoint import Checkpoint
from src.trainer.run_folder import RunFolder, step_of
from src.utils.errors import UserError


def curve(run: Path, name: str) -> tuple[list[int], list[float]]:
    """Steps and values of a scalar from the run's ``scalars.jsonl``. Raises ``UserError`` for a file that is none."""
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


def curves_figure(runs: Sequence[Path]) -> Figure:
    """The training loss and the dev WER of the runs over their steps, side by side."""
    figure = Figure(figsize=(11, 4), layout="constrained")
    loss, wer = figure.subplots(1, 2)
    for run in runs:
        loss.plot(*curve(run, "train/loss"), label=run.name, linewidth=0.8)
        steps, rates = curve(run, "dev/wer_greedy")
        wer.plot(steps, [100 * rate for rate in rates], label=run.name, marker=".")
    loss.set(title="training loss per token", xlabel="optimizer step", yscale="log")
    wer.set(title="dev WER, greedy (%)", xlabel="optimizer step", ylim=(0, 100))
    for axes in (loss, wer):
        axes.grid(alpha=0.3)
        axes.legend()
    return figure


def comparison_table(runs: Sequence[Path]) -> str:
    """A line for each run: parameters, steps, and how its best checkpoint scored with the first search, greedy."""
    width = max(len(run.name) for run in runs)
    lines = [f"{'run':{width}}  {'parameters':>12}  {'steps':>7}  {'dev WER':>8}  {'dev CER':>8}"]
    for run in runs:
        newest = RunFolder(run).newest()
        steps = 0 if newest is None else step_of(newest)
        rates = [curve(run, f"final/{rate}_greedy")[1] for rate in ("wer", "cer")]
        wer, cer = (f"{100 * rate[-1]:.2f} %" if rate else "-" for rate in rates)
        lines.append(f"{run.name:{width}}  {_parameters(run):>12,}  {steps:>7}  {wer:>8}  {cer:>8}")
    return "\n".join(lines)


def _parameters(run: Path) -> int:
    """How many weights the model has, without buffers, as its run and scripts/count_parameters.py say it."""
    return sum(weight.numel() for weight in Checkpoint.open(run).bare_model().parameters())
