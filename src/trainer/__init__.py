from src.trainer.build import build_trainer
from src.trainer.options import TrainerOptions
from src.trainer.trainer import Trainer

__all__ = ["Trainer", "TrainerOptions", "build_trainer"]
