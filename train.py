"""Trains a recogniser or a language model: ``python train.py -cn=NAME key=value ...`` (src/configs/NAME.yaml)."""

from __future__ import annotations

import shlex
import sys

from omegaconf import DictConfig

from src.trainer import Interrupted, build_trainer
from src.trainer.report import how_to_use
from src.utils.hydra_door import hydra_door


@hydra_door(default=None)
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


if __name__ == "__main__":
    main()
