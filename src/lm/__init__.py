from src.lm.neural import LSTMLanguageModel, NeuralScorer
from src.lm.ngram import NGramLM
from src.lm.scorers import TokenNGramScorer, WordNGramScorer

__all__ = ["LSTMLanguageModel", "NGramLM", "NeuralScorer", "TokenNGramScorer", "WordNGramScorer"]
