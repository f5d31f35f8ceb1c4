from src.decoding.ctc_beam import CTCBeamSearch
from src.decoding.ctc_greedy import CTCGreedySearch
from src.decoding.hypothesis import Hypothesis
from src.decoding.scorer import LengthBonus, Scorer

__all__ = ["CTCBeamSearch", "CTCGreedySearch", "Hypothesis", "LengthBonus", "Scorer"]
