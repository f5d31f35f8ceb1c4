from src.model.ctc import CTCModel
from src.model.speech_model import SpeechModel

__all__ = ["CTCModel", "SpeechModel"]
