"""Trains a recogniser or a language model: ``python train.py -cn=NAME key=value ...`` (src/configs/NAME.yaml)."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from omegaconf import DictConfig

from src.trainer import Interrupted, build_trainer
from src.trainer.comparison import comparison_table, curves_figure
from src.trainer.report import how_to_use
from src.utils.hydra_door import hydra_door


def compare(configs: list[DictConfig]) -> None:
    """The end of a sweep (-m): a table of its runs and a picture of their curves."""
    runs = [Path(config.save_dir) / config.run_name for config in configs]
    if all((run / "scalars.jsonl").is_file() for run in runs):  # by writer=[local]
        picture = runs[0].parent / "sweep.png"
        curves_figure(runs).savefig(picture, dpi=120)
        print(f"{comparison_table(runs)}\ncurves: {picture}")


@hydra_door(default=None, after_sweep=compare)
def main(config: DictConfig) -> None:
    trainer = build_trainer(config)
    try:
        checkpoint = trainer.run()
    except Interrupted as stop:
        words = [word for word in sys.argv if not word.startswith("trainer.resume_from=")]
        python = "python" if trainer.processes.count == 1 else "torchrun ..."
        if trainer.processes.is_first:
            print(f"{stop}; go on with: {python} {shlex.join(words)} trainer.resume_from=auto")
        raise SystemExit(stop.status) from None
    if trainer.processes.is_first:
        print(f"checkpoint: {checkpoint}")
        print(f"use it:     {how_to_use(trainer.config, checkpoint)}")
        page = trainer.folder.directory / "samples" / "index.html"
        if page.is_file():
            print(f"samples:    {page}")


if __name__ == "__main__":
    main()
