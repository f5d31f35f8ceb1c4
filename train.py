"""Trains a recogniser: ``python train.py -cn=NAME key=value ...`` (the configs lie in src/configs)."""

from __future__ import annotations

from omegaconf import DictConfig

from src.trainer import build_trainer
from src.utils.hydra_door import hydra_door


@hydra_door(default="quickstart")
def main(config: DictConfig) -> None:
    checkpoint = build_trainer(config).run()
    print(f"checkpoint: {checkpoint}")
    print(
        f"use it:     python inference.py checkpoint={checkpoint} data_dir=FOLDER save_dir=predictions decoder=beam"
    )


if __name__ == "__main__":
    main()
