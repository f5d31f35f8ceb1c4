"""A toy language: every letter is a sound of its own, so that a small model learns to write it within a minute."""

from __future__ import annotations

import numpy as np

from src.datasets.index import Entry
from src.datasets.speech_dataset import SpeechDataset
from src.utils.audio import SAMPLE_RATE
from src.utils.errors import UserError
from src.utils.seeding import addressed_rng

ALPHABET = "abcdefghijklmnopqrstuvwxyz' "
LETTER_S = (0.08, 0.16)  # how long a letter sounds
EDGE_S = 0.1  # silence around a text
LOUDNESS, NOISE = 0.25, 0.003
WORDS = (
    "a bad cab dad egg fed had jam keep lamp map nut open pig queen red sun tax up van wax yes zoo hello world"
).split()


def letters_of(text: str, rng: np.random.Generator) -> list[tuple[str, int]]:
    """The letters of a text and how many samples each sounds, differently each time; other signs are left out."""
    letters = [letter for letter in text.lower() if letter in ALPHABET]
    return [(letter, int(rng.uniform(*LETTER_S) * SAMPLE_RATE)) for letter in letters]


def tones_of(text: str, rng: np.random.Generator) -> np.ndarray:
    """The sound of a text, [N] float32 at 16 kHz: each letter two tones at once, the space silence.

    They last as ``letters_of`` has it, with ``EDGE_S`` seconds of silence before and after.

    >>> sound = tones_of("ab", addressed_rng(0))
    >>> 0.36 * 16000 < len(sound) < 0.52 * 16000
    True
    """
    edge = np.zeros(int(EDGE_S * SAMPLE_RATE))
    pieces = [edge]
    for letter, samples in letters_of(text, rng):
        place, seconds = ALPHABET.index(letter), np.arange(samples) / SAMPLE_RATE
        low, high = 300 + 90 * (place % 6), 1200 + 350 * (place // 6)
        sound = np.sin(2 * np.pi * low * seconds) + np.sin(2 * np.pi * high * seconds)
        # A short rise and fall keeps equal neighbours apart.
        envelope = np.minimum(1, np.minimum(np.arange(len(seconds)), np.arange(len(seconds))[::-1]) / 240)
        pieces.append(LOUDNESS * sound * envelope * (letter != " "))
    audio = np.concatenate([*pieces, edge])
    return (audio + NOISE * rng.standard_normal(len(audio))).astype(np.float32)


class TonesDataset(SpeechDataset):
    """Sentences of a few words in that language, made on the spot.

    Args:
        clips: how many.
        seed: of sentences and sounds; give training and dev different ones.
        max_words: words of a sentence, from 1 on.
        noise_only: noise instead of the sounds, as long as they would be: nobody can learn to write it, and who
            seems to has seen the texts.

    Example:
        >>> utterance = TonesDataset(clips=3, seed=1)[0]
        >>> utterance.text, utterance.audio.dtype
        ('tax lamp tax', dtype('float32'))
    """

    def __init__(
        self, clips: int = 1000, seed: int = 0, max_words: int = 3, noise_only: bool = False
    ) -> None:
        if clips < 1 or max_words < 1:
            raise UserError(f"TonesDataset: clips={clips} and max_words={max_words} must be at least 1")
        self.seed, self.noise_only = seed, noise_only
        entries = []
        for number in range(clips):
            rng = addressed_rng("tones", seed, number)
            text = " ".join(rng.choice(WORDS, size=rng.integers(1, max_words + 1)))
            entry = Entry(f"{seed}-{number:06d}", "", text)
            entries.append(Entry(entry.id, "", text, duration_s=len(self._sound(entry)) / SAMPLE_RATE))
        super().__init__(entries, name=f"tones-{seed}-{max_words}-{clips}{'-noise' * noise_only}")

    def read_audio(self, entry: Entry) -> np.ndarray:
        """[N] float32, the same every time."""
        sound = self._sound(entry)
        if not self.noise_only:
            return sound
        rng = addressed_rng("noise", self.seed, entry.id)
        return (0.1 * rng.standard_normal(len(sound))).astype(np.float32)

    def _sound(self, entry: Entry) -> np.ndarray:
        return tones_of(entry.text or "", addressed_rng("sound", self.seed, entry.id))
