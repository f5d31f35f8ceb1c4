from src.model.ctc import CTCModel
from src.model.las import LASModel
from src.model.paraformer import ParaformerModel
from src.model.parallel_decoder import ParallelDecoder
from src.model.predictors import LSTMPredictor, StatelessPredictor
from src.model.speech_llm import SpeechLLM
from src.model.speech_model import SpeechModel
from src.model.transducer import TransducerModel

__all__ = [
    "CTCModel",
    "LASModel",
    "LSTMPredictor",
    "ParallelDecoder",
    "ParaformerModel",
    "SpeechLLM",
    "SpeechModel",
    "StatelessPredictor",
    "TransducerModel",
]
