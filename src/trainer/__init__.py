from src.trainer.build import build_trainer, trainer_to_measure
from src.trainer.interruption import Interrupted
from src.trainer.options import TrainerOptions
from src.trainer.trainer import Trainer

__all__ = ["Interrupted", "Trainer", "TrainerOptions", "build_trainer", "trainer_to_measure"]
