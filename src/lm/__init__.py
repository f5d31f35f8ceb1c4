from src.lm.neural import LSTMLanguageModel, NeuralScorer
from src.lm.ngram import NGramLM
from src.lm.token_scorer import TokenNGramScorer
from src.lm.word_scorer import WordNGramScorer

__all__ = ["LSTMLanguageModel", "NGramLM", "NeuralScorer", "TokenNGramScorer", "WordNGramScorer"]
