"""What every search returns."""

from __future__ import annotations

from dataclasses import dataclass, field

from src.utils.masks import NEVER


@dataclass
class Hypothesis:
    """One candidate transcription of one utterance. A search returns, per utterance, a list of them, best first.

    ``token_times`` and ``token_log_probs`` have one number a token, or are empty where a search does not know them.
    """

    tokens: list[int]  # without blank, begin or end
    score: float  # the ranking total, natural log
    # "acoustic", "scorers", "ranking" (an attention search's coverage and normalisation) and "rescoring", as far as
    # there are such; together they are the score
    parts: dict[str, float] = field(default_factory=dict)
    token_times: list[int] = field(
        default_factory=list
    )  # frame, of those searched in, in which each token was emitted
    token_log_probs: list[float] = field(default_factory=list)  # log posterior of each token at its frame
    text: str = ""  # filled in by the recognizer, which owns the tokenizer


def nothing_possible() -> list[Hypothesis]:
    """Of an utterance of which no text is possible: the empty one, with a score of minus infinity."""
    return [Hypothesis([], NEVER, {"acoustic": NEVER})]
