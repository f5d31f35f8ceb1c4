"""eSpeak NG (the ``espeakng-loader`` wheel) through ctypes: text in, 16 kHz speech out.

The library keeps state between utterances (flutter, breath noise seeded by the clock), so each utterance
loads it afresh and seeds it (5 ms): a request gives the same samples in any process and any order.
"""

from __future__ import annotations

import _ctypes
import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from src.utils.audio import SAMPLE_RATE
from src.utils.errors import UserError

ESPEAK_RATE = 22_050  # = 441 * 50, as 16,000 = 320 * 50
AUDIO_OUTPUT_SYNCHRONOUS, INITIALIZE_DONT_EXIT, CHARS_UTF8 = 2, 0x8000, 1
RATE, PITCH, RANGE, WORD_GAP = 1, 3, 4, 7  # espeak_PARAMETER
Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)

# What eSpeak would read as an article, a weak vowel or another word.
SPOKEN = {"A": "eh", "I": "eye", "rubout": "rub out"}


@dataclass(frozen=True)
class Voice:
    """How eSpeak speaks: an accent, one of its voice variants and the settings of its prosody."""

    accent: str = "en-us"
    variant: str = "f3"
    rate: int = 170  # words per minute
    pitch: int = 50  # 0..99
    range: int = 50  # liveliness of the pitch, 0..99
    word_gap: int = 0  # extra silence between words, in units of 10 ms

    @property
    def name(self) -> str:
        return f"{self.accent}+{self.variant}"


@contextmanager
def fresh_library() -> Iterator[tuple[ctypes.CDLL, bytes]]:
    """The library, loaded anew, and the path of its voices; ``UserError`` when it is not installed."""
    try:
        import espeakng_loader

        library = ctypes.CDLL(espeakng_loader.get_library_path())
        data_path = espeakng_loader.get_data_path().encode()
    except (ImportError, OSError, RuntimeError) as error:
        remedy = "the speech synthesiser is missing; run: pip install espeakng-loader"
        raise UserError(f"espeakng-loader: {error}; {remedy}") from None
    try:
        yield library, data_path
    finally:
        _ctypes.dlclose(library._handle)


def espeak_version() -> str:
    """The library's version, e.g. ``1.52.0``; raises ``UserError`` when it is not installed."""
    with fresh_library() as (library, _):
        library.espeak_Info.restype = ctypes.c_char_p
        return library.espeak_Info(None).decode().split()[0]


def speak(text: str, voice: Voice, seed: int = 0) -> np.ndarray:
    """Speaks ``text`` (CAPITAL letters are spelled) and returns float32 [N], 16 kHz, silent ends trimmed.

    Raises ``UserError`` when the library is missing or has no such voice. Empty when nothing is audible.

    >>> speak("hello", Voice()).dtype
    dtype('float32')
    """
    chunks: list[np.ndarray] = []

    @Callback
    def receive(samples, count: int, events) -> int:
        if samples and count > 0:
            chunks.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0

    request = " ".join(SPOKEN.get(word, word) for word in text.split()).encode() + b"\0"
    with fresh_library() as (library, data_path):
        if library.espeak_Initialize(AUDIO_OUTPUT_SYNCHRONOUS, 0, data_path, INITIALIZE_DONT_EXIT) < 0:
            raise UserError(f"{data_path.decode()}: no readable voices; reinstall espeakng-loader")
        try:
            library.espeak_SetSynthCallback(receive)
            if library.espeak_SetVoiceByName(voice.name.encode()) != 0:
                raise UserError(
                    f"{voice.name}: eSpeak NG has no such voice; see src/synthetic_speech/voices.py"
                )
            library.espeak_ng_SetRandSeed(ctypes.c_long(seed))
            ctypes.CDLL(None).srand(ctypes.c_uint(seed))  # some voices draw their noise from the C library
            settings = {RATE: voice.rate, PITCH: voice.pitch, RANGE: voice.range, WORD_GAP: voice.word_gap}
            for parameter, value in settings.items():
                library.espeak_SetParameter(parameter, value, 0)
            library.espeak_Synth(request, len(request), 0, 1, 0, CHARS_UTF8, None, None)
            library.espeak_Synchronize()
        finally:
            library.espeak_Terminate()
    audio = np.concatenate([np.zeros(0, np.int16), *chunks]).astype(np.float32) / 32768
    return trim(resample(audio))


def resample(audio: np.ndarray) -> np.ndarray:
    """22,050 Hz -> 16,000 Hz by cutting the spectrum; float32 [N] -> [N * 320/441 and some silence].

    Exact for a signal with silent ends. A raised cosine fades 7.5 to 8 kHz, so that nothing rings.
    """
    blocks = -(-len(audio) // (441 * 16)) * 16  # whole blocks of 441, with few prime factors
    if not blocks:
        return np.zeros(0, np.float32)
    spectrum = np.fft.rfft(audio, 441 * blocks)[: 160 * blocks + 1]
    hertz = np.linspace(0, SAMPLE_RATE / 2, len(spectrum))
    spectrum *= 0.5 + 0.5 * np.cos(np.pi * np.clip((hertz - 7500) / 500, 0, 1))
    return (np.fft.irfft(spectrum, 320 * blocks) * (320 / 441)).astype(np.float32)


def trim(audio: np.ndarray, threshold: float = 1e-3) -> np.ndarray:
    """Cuts the ends that stay below ``threshold`` (of full scale)."""
    loud = np.flatnonzero(np.abs(audio) > threshold)
    return audio[loud[0] : loud[-1] + 1] if len(loud) else audio[:0]
