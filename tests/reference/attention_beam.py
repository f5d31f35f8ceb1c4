"""The attention models' beam search once more: lists of texts, each of them scored anew from its first token on."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

from reference.scored_texts import ScoredTexts

NEVER = -math.inf


def ctc_of_texts(probabilities: list[list[float]]) -> tuple[Callable, Callable]:
    """probabilities [T, V], token 0 the blank -> functions of a text: log P(the text, then anything) and log P(it)."""
    T = len(probabilities)

    @cache
    def forward(text: tuple[int, ...]) -> tuple[list[float], list[float], float]:
        """Of the text after t = 0..T frames, ending in blank and in its last token; and of all that begins with it."""
        if not text:
            blanks = [1.0]
            for frame in probabilities:
                blanks.append(blanks[-1] * frame[0])
            return blanks, [0.0] * (T + 1), 1.0
        before_blank, before_token, _ = forward(text[:-1])
        is_doubled = len(text) > 1 and text[-2] == text[-1]
        blanks, tokens, prefix = [0.0], [0.0], 0.0
        for t, frame in enumerate(probabilities):
            arriving = before_blank[t] + (0.0 if is_doubled else before_token[t])
            prefix += arriving * frame[text[-1]]
            blanks.append((blanks[t] + tokens[t]) * frame[0])
            tokens.append((tokens[t] + arriving) * frame[text[-1]])
        return blanks, tokens, prefix

    def log(probability: float) -> float:
        return math.log(probability) if probability else NEVER

    return (
        lambda text: log(forward(text)[2]),
        lambda text: log(forward(text)[0][T] + forward(text)[1][T]),
    )


def beam_of_texts(
    look: Callable[[tuple[int, ...]], tuple[list[float], list[float]]],
    ctc: tuple[Callable, Callable],
    scored: ScoredTexts,
    limit: int,
    beam_size: int,
    ctc_weight: float,
    beam_threshold: float | None,
    length_normalization: float,
    coverage_weight: float,
    end_threshold: float | None,
) -> list[tuple[tuple[int, ...], float]]:
    """Texts of at most ``limit`` tokens and their scores, best first.

    look: of a text, the log probability of the end and of each next token [V], and the attention [T] that each frame
        got in all, for it and for what comes next.
    ctc: ``ctc_of_texts``.
    """

    def score(text: tuple[int, ...], ends: bool, length: float) -> float:
        attention = sum(look(text[:n])[0][token] for n, token in enumerate([*text, *[0] * ends]))
        total = (1 - ctc_weight) * attention + scored.whole(text) + (scored.end(text) if ends else 0.0)
        if ctc_weight:
            total += ctc_weight * ctc[ends](text)
        covered = sum(weight > 0.5 for weight in look(text if ends else text[:-1])[1])
        return (total + coverage_weight * covered) / length

    def best(found: list[tuple[tuple[int, ...], float]]) -> list[tuple[tuple[int, ...], float]]:
        possible = [entry for entry in found if entry[1] > NEVER]
        return sorted(possible, key=lambda entry: -entry[1])[:beam_size]

    written, ended = [()], []
    for count in range(limit + 1):
        length, grown = (count + 1) ** length_normalization, []
        for text in written:
            end, *others = look(text)[0]
            may_end = end_threshold is None or not others or end > end_threshold * max(others)
            if may_end or count == limit:
                ended.append((text, score(text, True, length)))
            if count < limit:
                longer = [(*text, token) for token in range(1, 1 + len(others))]
                grown += [(text, score(text, False, length)) for text in longer]
        ended, grown = best(ended), best(grown)
        if beam_threshold is not None and grown:
            least = max(value for _, value in grown[:1] + ended[:1]) - beam_threshold
            grown = [entry for entry in grown if entry[1] >= least]
        written = [text for text, _ in grown]
    return ended
