from src.lm.ngram import NGramLM
from src.lm.scorers import WordNGramScorer

__all__ = ["NGramLM", "WordNGramScorer"]
