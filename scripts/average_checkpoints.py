"""Averages the weights of several checkpoints of a run: often better than each of them, at no cost in use.

    python train.py -cn=conformer_ctc trainer.keep_last=5 trainer.keep_best=5
    python scripts/average_checkpoints.py saved/conformer_ctc --last 5
    python inference.py checkpoint=saved/conformer_ctc/checkpoints/average-last-5 data_dir=... save_dir=...

A checkpoint holds the moving average already where the run has trainer.ema_decay; then these are averaged.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src.checkpoint import Checkpoint, write_checkpoint
from src.trainer.run_folder import RunFolder
from src.utils.errors import UserError, door
from src.utils.files import atomic_directory

TITLE = "# The average of"  # how its card begins


def average(checkpoints: list[Checkpoint]) -> dict[str, torch.Tensor]:
    """The mean of each tensor, summed in float64. Raises ``UserError`` when they are of different models."""
    sums = {name: value.double() for name, value in checkpoints[0].weights().items()}
    for checkpoint in checkpoints[1:]:
        weights = checkpoint.weights()
        if {n: v.shape for n, v in weights.items()} != {n: v.shape for n, v in sums.items()}:
            raise UserError(
                f"{checkpoint.path}: has other weights than {checkpoints[0].path}; average one model"
            )
        for name, value in weights.items():
            sums[name] += value
    return {name: (value / len(checkpoints)).float() for name, value in sums.items()}


@door
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="a run's folder, such as saved/conformer_ctc")
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--last", type=int, metavar="N", help="the N newest checkpoints (trainer.keep_last)")
    which.add_argument("--best", type=int, metavar="N", help="the N best checkpoints (trainer.keep_best)")
    parser.add_argument("--out", type=Path, help="default: RUN/checkpoints/average-last-N or -best-N")
    arguments = parser.parse_args()

    kind, count = ("last", arguments.last) if arguments.last is not None else ("best", arguments.best)
    folder = RunFolder(arguments.run)
    if not folder.checkpoints.is_dir():
        raise UserError(
            f"{arguments.run}: no run's folder, it has no checkpoints/; give one such as saved/NAME"
        )
    found = folder.newest_steps() if kind == "last" else folder.best_steps()
    if not 2 <= count <= len(found):
        raise UserError(
            f"{arguments.run}: --{kind} {count} of {len(found)} checkpoints there; give 2 or more of those that "
            f"are there, or train longer, with trainer.keep_{kind}={max(2, count)}"
        )
    checkpoints = [Checkpoint.open(path) for path in found[:count]]
    out = arguments.out or folder.checkpoints / f"average-{kind}-{count}"
    # It is replaced as a whole.
    is_average = (out / "README.md").is_file() and (out / "README.md").read_text(
        "utf-8", "replace"
    ).startswith(TITLE)
    if out.exists() and not is_average:
        raise UserError(f"--out {out}: is there already and no average; choose another --out")
    first = checkpoints[0]
    model = first.model(nn.Module)
    model.load_state_dict(average(checkpoints))
    names = ", ".join(checkpoint.path.name for checkpoint in checkpoints)
    card = f"{TITLE} {names}\n\nMade by scripts/average_checkpoints.py; the cards of these tell the rest.\n"
    try:
        with atomic_directory(out) as unfinished:
            write_checkpoint(unfinished, model, first.config, first.text_encoder(), card)
    except OSError as error:
        raise UserError(f"{out}: cannot be written ({error}); choose another --out") from None
    print(f"averaged {names}")
    print(f"checkpoint: {out}")


if __name__ == "__main__":
    main()
