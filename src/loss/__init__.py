from src.loss.consistency import ConsistentCTCObjective
from src.loss.ctc import CTCObjective
from src.loss.next_token import NextTokenObjective
from src.loss.transducer_objective import TransducerObjective

__all__ = ["CTCObjective", "ConsistentCTCObjective", "NextTokenObjective", "TransducerObjective"]
