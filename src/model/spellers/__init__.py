from src.model.spellers.lstm import LSTMSpeller
from src.model.spellers.transformer import TransformerSpeller

__all__ = ["LSTMSpeller", "TransformerSpeller"]
