from src.lm.ngram import NGramLM
from src.lm.scorers import TokenNGramScorer, WordNGramScorer

__all__ = ["NGramLM", "TokenNGramScorer", "WordNGramScorer"]
