from src.model.listeners.encoder import TransformersEncoder
from src.model.listeners.frontends import TransformersFrontend

__all__ = ["TransformersEncoder", "TransformersFrontend"]
