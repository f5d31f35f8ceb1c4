from src.loss.consistency import ConsistentCTCObjective
from src.loss.ctc import CTCObjective
from src.loss.next_token import NextTokenObjective

__all__ = ["CTCObjective", "ConsistentCTCObjective", "NextTokenObjective"]
