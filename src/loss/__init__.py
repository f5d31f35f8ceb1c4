from src.loss.ctc import CTCObjective

__all__ = ["CTCObjective"]
