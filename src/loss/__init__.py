from src.loss.consistency import ConsistentCTCObjective
from src.loss.ctc import CTCObjective

__all__ = ["CTCObjective", "ConsistentCTCObjective"]
