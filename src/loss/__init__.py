from src.loss.answer import AnswerObjective
from src.loss.attention import AttentionObjective
from src.loss.consistency import ConsistentCTCObjective
from src.loss.ctc import CTCObjective
from src.loss.next_token import NextTokenObjective
from src.loss.paraformer import ParaformerObjective
from src.loss.transducer_objective import TransducerObjective
from src.loss.word_errors import WordErrorObjective

__all__ = [
    "AnswerObjective",
    "AttentionObjective",
    "CTCObjective",
    "ConsistentCTCObjective",
    "NextTokenObjective",
    "ParaformerObjective",
    "TransducerObjective",
    "WordErrorObjective",
]
