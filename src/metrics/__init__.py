"""Error rates of whole corpora, and the scoring of folders of transcripts."""

from __future__ import annotations

from src.metrics.error_rates import (
    ErrorCounts,
    bootstrap_interval,
    character_errors,
    corpus_error_rates,
    paired_interval,
    word_errors,
)
from src.metrics.scoring import Score, ScoredUtterance, score_folders

__all__ = [
    "ErrorCounts",
    "Score",
    "ScoredUtterance",
    "bootstrap_interval",
    "character_errors",
    "corpus_error_rates",
    "paired_interval",
    "score_folders",
    "word_errors",
]
