from src.decoding.ctc import CTCBeamSearch, CTCGreedySearch
from src.decoding.hypothesis import Hypothesis
from src.decoding.scorer import LengthBonus, Scorer

__all__ = ["CTCBeamSearch", "CTCGreedySearch", "Hypothesis", "LengthBonus", "Scorer"]
