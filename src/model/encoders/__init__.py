from src.model.encoders.conformer import ConformerEncoder
from src.model.encoders.deepspeech2 import DeepSpeech2Encoder
from src.model.encoders.mlp import MLPEncoder
from src.model.encoders.pyramidal import PyramidalEncoder

__all__ = ["ConformerEncoder", "DeepSpeech2Encoder", "MLPEncoder", "PyramidalEncoder"]
