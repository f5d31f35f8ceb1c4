"""Phrases that a beam search is to expect: names, terms, places that the training texts did not have."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from src.decoding.scorer import touched
from src.text_encoder import WORD_START
from src.utils.errors import UserError

ROOT = 0
MOST_ENTRIES = 100_000_000  # of a table of states and tokens


class Automaton(NamedTuple):
    """Of Aho and Corasick (1975): a state is the longest end of the text that a phrase begins with."""

    letters: dict[str, int]  # column of each letter of the phrases; one more column is for all other letters
    next: Tensor  # [S, A + 1] the state after one letter more
    completed: Tensor  # [S, A + 1] phrases that this letter completes
    hope: Tensor  # [S] share of a phrase that is there already, while it is not complete


def build_automaton(phrases: Sequence[str]) -> Automaton:
    """phrases: each with "▁" around it, so that it matches whole words only."""
    letters = {letter: column for column, letter in enumerate(sorted(set("".join(phrases))))}
    children: list[dict[str, int]] = [{}]
    hope, ends, after_space = [0.0], [0], [False]
    for phrase in phrases:
        state = ROOT
        for length, letter in enumerate(phrase, start=1):
            if letter not in children[state]:
                children[state][letter] = len(children)
                children.append({})
                hope.append(0.0)
                ends.append(0)
                after_space.append(letter == WORD_START)
            state = children[state][letter]
            if length < len(phrase):
                hope[state] = max(hope[state], (length - 1) / (len(phrase) - 1))
        ends[state] = 1
    following = torch.zeros(len(children), len(letters) + 1, dtype=torch.long)
    fallback = [ROOT] * len(children)
    waiting = deque([ROOT])
    while waiting:  # shorter states first: where a state cannot go on, the one that it falls back to may
        state = waiting.popleft()
        following[state] = following[fallback[state]]
        if state != ROOT:
            ends[state] += ends[fallback[state]]
            hope[state] = max(hope[state], hope[fallback[state]])
        for letter, child in children[state].items():
            fallback[child] = int(following[state, letters[letter]])  # not yet the child itself
            following[state, letters[letter]] = child
            waiting.append(child)
    completed = torch.tensor(ends)[following]
    is_after_space = torch.tensor(after_space)
    following[is_after_space, letters[WORD_START]] = is_after_space.nonzero().squeeze(1)  # two spaces are one
    completed[is_after_space, letters[WORD_START]] = 0
    return Automaton(letters, following, completed, torch.tensor(hope))


class Hotwords:
    """One point for every time that one of the phrases stands in the text, as whole words.

    The points come letter by letter, so that a phrase is not lost before it is complete; what only began like one
    gives them back. With a weight of w in ``scorers`` a phrase is thus e^w times as probable as it sounds.

    Args:
        phrases: as normalised texts have them (lower case), of one word or several.
        tokens: of the tokenizer by id; "▁" stands for the space.

    Raises ``UserError`` for no phrases, or one with letters that the tokenizer does not have.

    Example:
        >>> hotwords = Hotwords(["ab"], tokens=["<blank>", "▁", "a", "b"])
        >>> state = hotwords.advance(hotwords.start(1), torch.tensor([[0]]), torch.tensor([[2]]))
        >>> [round(point, 2) for point in hotwords.score(state)[0, 0].tolist()]  # a third was given for the "a"
        [0.0, -0.33, -0.33, 0.33]
    """

    def __init__(self, phrases: Sequence[str], tokens: Sequence[str]) -> None:
        if isinstance(phrases, str) or not isinstance(phrases, Sequence) or not phrases:
            raise UserError(f"Hotwords: phrases={phrases!r} must be a list of texts, at least one")
        for phrase in phrases:
            if not isinstance(phrase, str):  # YAML reads on and yes as true
                raise UserError(f"Hotwords: the phrase {phrase!r} is no text; put it in quotes")
        known = {letter for token in tokens[1:] for letter in token}
        spelled = []
        for phrase in phrases:
            text = WORD_START.join(phrase.split())
            missing = sorted(set(text) - known - {WORD_START})
            if missing or not text:
                reason = f"has {missing[0]!r}, which no token has" if missing else "is empty"
                raise UserError(
                    f"Hotwords: the phrase '{phrase}' {reason}; write it as transcripts are written"
                )
            spelled.append(f"{WORD_START}{text}{WORD_START}")
        if sum(map(len, spelled)) * len(tokens) > MOST_ENTRIES:
            raise UserError(f"Hotwords: {len(phrases)} phrases are too many for the memory; take fewer")
        automaton = build_automaton(list(dict.fromkeys(spelled)))
        self.next, self.points = _through_tokens(automaton, ["", *tokens[1:]])
        space = automaton.letters[WORD_START]
        # A text begins like a word after a space, and so it ends.
        self.first = int(automaton.next[ROOT, space])
        self.end = automaton.completed[:, space] - automaton.hope

    def to(self, device: torch.device | str) -> Hotwords:
        self.next, self.points, self.end = (x.to(device) for x in (self.next, self.points, self.end))
        return self

    def start(self, batch_size: int) -> Tensor:
        return torch.full((batch_size, 1), self.first, device=self.next.device)

    def score(self, state: Tensor) -> Tensor:
        return self.points[state]

    def advance(self, state: Tensor, parents: Tensor, tokens: Tensor) -> Tensor:
        state = state.gather(1, parents)
        slots = touched(tokens)
        state.view(-1)[slots] = self.next[state.flatten()[slots], tokens.flatten()[slots].clamp_min(0)]
        return state

    def finish(self, state: Tensor) -> Tensor:
        return self.end[state]


def _through_tokens(automaton: Automaton, tokens: Sequence[str]) -> tuple[Tensor, Tensor]:
    """For every state and token [S, V]: the state after the token's letters, and the points that they are worth."""
    other = len(automaton.letters)
    longest = max(map(len, tokens))
    columns = torch.full((longest, len(tokens)), -1)  # -1: the token has no more letters
    for v, token in enumerate(tokens):
        for position, letter in enumerate(token):
            columns[position, v] = automaton.letters.get(letter, other)
    first = torch.arange(len(automaton.next))[:, None].expand(-1, len(tokens))
    state, completed = first, torch.zeros_like(first)
    for column in columns:
        goes_on = column >= 0
        column = column.clamp_min(0)
        completed = completed + automaton.completed[state, column] * goes_on
        state = torch.where(goes_on, automaton.next[state, column], state)
    return state, completed + automaton.hope[state] - automaton.hope[first]
