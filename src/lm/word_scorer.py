"""An n-gram model of words in a beam search, over any tokens: letter by letter, and a word is charged when it ends.

It answers for all hypotheses [batch, beam] at once, and remembers per hypothesis what it found out: what is asked anew
in a step is only what its new tokens changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from src.decoding.prefix_names import BASE
from src.decoding.scorer import touched
from src.decoding.settings import is_path, require, require_weight
from src.lm.kenlm_binary import KenLMBinary, open_word_lm
from src.lm.kneser_ney import END, SPECIAL, UNKNOWN
from src.lm.ngram import LM_EXPECTED, LN_10, NGramLM
from src.text_encoder import WORD_START
from src.utils.errors import UserError

LOOK_AHEAD_UNIT = 1e-3  # whole numbers add up to nothing again, exactly
LEAST_LOOK_AHEAD = -30_000  # of these
BREAK = -(2**15)
LARGEST_TABLE = 2 * 10**9  # bytes
LEAST_SHARE_OF_WORDS = 0.05


def word_hash(letters: str) -> int:
    """A 64-bit name of letters, of which ``hash(ab) = hash(a) * BASE ** len(b) + hash(b)``; 0 for no letters."""
    value = 0
    for letter in letters:
        value = (value * BASE + ord(letter) + 1) % 2**64
    return _signed(value)


def _signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value


class _Words(NamedTuple):
    """The state of ``WordNGramScorer``."""

    # [B, K, 3]: the language model's context before the open word, that after it should it end here, and which
    # beginning of a word its letters are (UNWRITABLE: none, it has been charged as an unknown word)
    ids: Tensor
    # [B, K, 3] points of the open word should it end here, of an unknown word in its place, and of one after it; the
    # first two give back what the letters were charged ahead
    points: Tensor


class WordNGramScorer:
    """P(word | words before) of a word-level model, for characters and for BPE.

    A word is charged when it ends. Until then each letter is charged by how much less probable it makes the most
    probable word that its letters begin (look-ahead, Ortmanns, Ney and Eiden, ICSLP 1996), which the end gives back: a
    hypothesis does not live at the expense of others by not ending its words. A word that the model does not have is
    charged as soon as its letters begin no known word.

    Args:
        lm: the language model, or its file (own, ARPA, KenLM's). Its words are folded to lower case, as texts are.
        tokens: of the tokenizer by id; a token that begins with "▁" begins a word.
        unknown_penalty: added (natural log) for a word that the model does not have, besides its P(<unk>). A large
            negative one (-1000, say) makes the model's words a lexicon: nothing else is written where they can be.

    A table of what each token charges after each beginning of a word takes 2 bytes an entry: as many rows as the words
    have beginnings (58,000 of English: 146,000), as many columns as there are tokens.

    Raises ``UserError`` when hardly any of the model's words can be written with the tokens (another language, or
    other letters), or the table would take more than 2 GB.
    """

    def __init__(
        self, lm: NGramLM | KenLMBinary | str | Path, tokens: Sequence[str], unknown_penalty: float = -5.0
    ) -> None:
        require_weight("unknown_penalty", unknown_penalty)
        require(isinstance(lm, NGramLM | KenLMBinary) or is_path(lm), "lm", lm, LM_EXPECTED)
        self.lm = open_word_lm(lm) if is_path(lm) else lm
        self.unknown_penalty = unknown_penalty
        if piece := next((word for word in self.lm.words if WORD_START in word), None):
            raise UserError(
                f"the language model is one of tokens (such as '{piece}'); give it as one, not as one of words"
            )
        words = _writable_words(self.lm, tokens)
        chances = (
            self.lm.unigrams.double().mul(LN_10 / LOOK_AHEAD_UNIT).round().clamp_min(-1e9).long().tolist()
        )
        best: dict[str, int] = {}  # the most probable word that letters begin
        for word, number in words.items():  # the most probable first
            for end in range(len(word) + 1):
                best.setdefault(word[:end], chances[number])
        ahead = {letters: max(chance - best[""], LEAST_LOOK_AHEAD) for letters, chance in best.items()}
        size = 2 * (len(ahead) + 1) * len(tokens)
        if size > LARGEST_TABLE:
            raise UserError(
                f"{len(words):,} words of the language model with {len(tokens):,} tokens take a table of "
                f"{size / 1e9:.1f} GB, more than {LARGEST_TABLE / 1e9:g}; take a model of fewer words, or fewer tokens"
            )
        by_hash = sorted((word_hash(letters), letters) for letters in ahead)
        node_of = {letters: node for node, (_, letters) in enumerate(by_hash)}
        self.hashes = torch.tensor([number for number, _ in by_hash])  # of the beginnings, ascending
        self.root = node_of[""]
        self.word = torch.tensor([words.get(letters, UNKNOWN) for _, letters in by_hash])
        # Token 0 is blank or the end of the sentence: it changes no word.
        spelled = ["", *(token.removeprefix(WORD_START) for token in tokens[1:])]
        self.starts_word = torch.tensor([False, *(token.startswith(WORD_START) for token in tokens[1:])])
        self.letters = torch.tensor([word_hash(text) for text in spelled])
        self.shifts = torch.tensor([_signed(pow(BASE, len(text), 2**64)) for text in spelled])
        self.ahead = torch.tensor(
            [*(LOOK_AHEAD_UNIT * ahead[letters] for _, letters in by_hash), 0.0]
        ).double()
        # What a token charges ahead after these letters [nodes + 1, V]; BREAK: no known word goes on, or begins, so.
        self.charges = torch.full((len(by_hash) + 1, len(tokens)), BREAK, dtype=torch.int16)
        going_on = {text: v for v, text in enumerate(spelled) if text and not self.starts_word[v]}
        lengths = sorted({len(text) for text in going_on})
        steps = [
            (
                node_of[letters[:-length]],
                going_on[letters[-length:]],
                ahead[letters] - ahead[letters[:-length]],
            )
            for letters in ahead
            for length in lengths
            if length <= len(letters) and letters[-length:] in going_on
        ]
        nodes, columns, charges = torch.tensor(steps, dtype=torch.long).view(-1, 3).T
        self.charges[nodes, columns] = charges.short()
        begun = torch.tensor([ahead.get(text, BREAK) for text in spelled], dtype=torch.int16)
        self.charges[:, self.starts_word] = begun[self.starts_word]
        self.charges[-1, ~self.starts_word] = 0  # the word has been charged
        self.charges[:, 0] = 0

    @property
    def needs_step(self) -> Tensor:
        """[V] as ``FarScorer`` has it: tokens that begin a word, as they end the one before."""
        return self.starts_word

    def to(self, device: torch.device | str) -> WordNGramScorer:
        self.lm.to(device)
        for name in ("hashes", "word", "starts_word", "letters", "shifts", "ahead", "charges"):
            setattr(self, name, getattr(self, name).to(device))
        return self

    def start(self, batch_size: int) -> _Words:
        device = self.hashes.device
        begin = torch.full((batch_size, 1), self.lm.begin, device=device)
        unknown = self._unknown(begin)[0]
        root = torch.full_like(begin, self.root)
        points = torch.stack([torch.zeros_like(unknown), unknown, unknown], 2)
        return _Words(torch.stack([begin, begin, root], 2), points)

    def score(self, state: _Words) -> Tensor:
        """[B, K, V]: a token that begins a word ends the one before it."""
        ends, unknown, unknown_after = state.points.unsqueeze(2).unbind(3)
        charges = self.charges.index_select(0, state.ids[..., 2].flatten()).view(*ends.shape[:2], -1)
        charged = self._charged(charges, torch.where(self.starts_word, unknown_after, unknown))
        return torch.where(self.starts_word, ends, 0.0) + charged

    def advance(self, state: _Words, parents: Tensor, tokens: Tensor) -> _Words:
        return self.advance_far(state, parents, tokens, tokens.new_empty(len(tokens), 0))[0]

    def advance_far(
        self, state: _Words, parents: Tensor, tokens: Tensor, added: Tensor
    ) -> tuple[_Words, Tensor]:
        """As ``FarScorer`` has it: a token that begins a word needs a step of its own."""
        where = parents.unsqueeze(2).expand(-1, -1, 3)
        ids, points = state.ids.gather(1, where), state.points.gather(1, where)
        worth = torch.zeros_like(points[..., 0])
        letters, shift = torch.zeros_like(tokens[:, :1]), torch.ones_like(tokens[:, :1])
        for column in added.clamp_min(0).unsqueeze(2).unbind(1):
            letters = letters * self.shifts.take(column) + self.letters.take(column)
            shift = shift * self.shifts.take(column)
        slots = touched(torch.maximum(tokens, added[:, :1]) if added.size(1) else tokens)
        old, token = ids.view(-1, 3).index_select(0, slots), tokens.take(slots).clamp_min_(0)
        letters, shift = (part.expand_as(tokens).take(slots) for part in (letters, shift))
        new_ids, new_points = self._grown(*old.unbind(1), token, letters, shift)
        if added.size(1):
            _, unknown, unknown_after = points.view(-1, 3).index_select(0, slots).unbind(1)
            starts, (_, _, before), (_, _, node) = (
                self.starts_word.take(token),
                old.unbind(1),
                new_ids.unbind(1),
            )
            if_unknown = torch.where(starts, unknown_after, unknown)
            charged = self._charged(self.charges[before, token], if_unknown)
            before = torch.where(starts, self.root, before)
            in_all = torch.where(
                node == len(self.hashes), if_unknown, self.ahead.take(node) - self.ahead.take(before)
            )
            worth.view(-1).index_copy_(0, slots, in_all - charged)
        ids.view(-1, 3).index_copy_(0, slots, new_ids)
        points.view(-1, 3).index_copy_(0, slots, new_points)
        return _Words(ids, points), worth

    def _charged(self, charges: Tensor, if_unknown: Tensor) -> Tensor:
        return torch.where(charges == BREAK, if_unknown, LOOK_AHEAD_UNIT * charges.double())

    def finish(self, state: _Words) -> Tensor:
        """[B, K]: the open word, and the end of the sentence."""
        after = state.ids[..., 1]
        end, _ = self.lm.advance(after, torch.full_like(after, END))
        return state.points[..., 0] + LN_10 * end

    def _unknown(self, contexts: Tensor) -> tuple[Tensor, Tensor]:
        """Points of an unknown word, and the contexts after it."""
        points, after = self.lm.advance_unknown(contexts)
        return LN_10 * points + self.unknown_penalty, after

    def _grown(
        self, context: Tensor, after: Tensor, node: Tensor, token: Tensor, more: Tensor, shift: Tensor
    ) -> tuple[Tensor, Tensor]:
        """ids [n, 3] and points [n, 3] of hypotheses [n] after their next tokens and more letters, of which ``shift``
        tells how many; token 0 changes nothing."""
        starts, unwritable = self.starts_word.take(token), len(self.hashes)
        context = torch.where(starts, after, context)
        node = torch.where(starts, self.root, node)
        was_charged = node == unwritable
        letters = self.hashes.take(node.clamp_max(unwritable - 1)) * self.shifts.take(token)
        letters = (letters + self.letters.take(token)) * shift + more
        at = torch.searchsorted(self.hashes, letters).clamp_(max=unwritable - 1)
        is_open = (self.hashes.take(at) == letters) & ~was_charged
        node = torch.where(is_open, at, unwritable)
        unknown, after_unknown = self._unknown(context)
        context = torch.where(is_open | was_charged, context, after_unknown)
        word = torch.where(is_open, self.word.take(at), UNKNOWN)
        is_word, is_empty = word != UNKNOWN, node == self.root
        # Where there is no word, no search either: one that always goes the same way takes next to no time.
        ends, after = self.lm.advance(torch.where(is_word, context, 0), word)
        ends = torch.where(is_word, LN_10 * ends, unknown).masked_fill(~is_open | is_empty, 0.0)
        after = torch.where(is_word, after, after_unknown)
        after = torch.where(is_open & ~is_empty, after, context)
        ahead = self.ahead.take(node)
        unknown = unknown.masked_fill(~is_open, 0.0)
        points = torch.stack([ends - ahead, unknown - ahead, self._unknown(after)[0]], 1)
        return torch.stack([context, after, node], 1), points


def _writable_words(lm: NGramLM | KenLMBinary, tokens: Sequence[str]) -> dict[str, int]:
    """The model's words that the tokens can write, in lower case, and their ids."""
    alphabet = {letter for token in tokens[1:] for letter in token.removeprefix(WORD_START)}
    ids: dict[str, int] = {}
    spelled = [(word.lower(), number) for number, word in enumerate(lm.words) if word not in SPECIAL]
    chances = lm.unigrams.tolist()
    for word, number in sorted(spelled, key=lambda pair: -chances[pair[1]]):
        if alphabet.issuperset(word):
            ids.setdefault(word, number)  # "May" and "may": the more frequent one
    if not ids or len(ids) < LEAST_SHARE_OF_WORDS * len(spelled):
        example = next((word for word, _ in spelled if word not in ids), "")
        raise UserError(
            f"the language model's words (such as '{example}') cannot be written with the tokenizer's letters; "
            "take a model of the same language and alphabet"
        )
    return ids
