from src.decoding.attention_beam import AttentionBeamSearch
from src.decoding.attention_greedy import AttentionGreedySearch
from src.decoding.ctc_beam import CTCBeamSearch
from src.decoding.ctc_greedy import CTCGreedySearch
from src.decoding.hotwords import Hotwords
from src.decoding.hypothesis import Hypothesis
from src.decoding.paraformer_search import (
    ParaformerBeamSearch,
    ParaformerGreedySearch,
    ParaformerSamplingSearch,
)
from src.decoding.rescoring import NBestRescoring
from src.decoding.scorer import LengthBonus, Scorer
from src.decoding.speech_llm_search import (
    SpeechLLMBeamSearch,
    SpeechLLMGreedySearch,
    SpeechLLMSamplingSearch,
)
from src.decoding.transducer_beam import TransducerBeamSearch
from src.decoding.transducer_greedy import TransducerGreedySearch

__all__ = [
    "AttentionBeamSearch",
    "AttentionGreedySearch",
    "CTCBeamSearch",
    "CTCGreedySearch",
    "Hotwords",
    "Hypothesis",
    "LengthBonus",
    "NBestRescoring",
    "ParaformerBeamSearch",
    "ParaformerGreedySearch",
    "ParaformerSamplingSearch",
    "Scorer",
    "SpeechLLMBeamSearch",
    "SpeechLLMGreedySearch",
    "SpeechLLMSamplingSearch",
    "TransducerBeamSearch",
    "TransducerGreedySearch",
]
