"""Trains a recogniser: ``python train.py -cn=NAME key=value ...`` (the configs lie in src/configs)."""

from __future__ import annotations

import shlex
import sys

from omegaconf import DictConfig

from src.trainer import Interrupted, build_trainer
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
        print(
            f"use it:     python inference.py checkpoint={checkpoint} data_dir=FOLDER save_dir=OUT decoder=beam"
        )


if __name__ == "__main__":
    main()
