"""Where a long recording can be cut."""

from __future__ import annotations

import numpy as np

from src.utils.audio import SAMPLE_RATE

FRAME = SAMPLE_RATE // 50  # 20 ms
QUIET = 10  # frames that have to be quiet together


def cut_at_pauses(audio: np.ndarray, longest_s: float) -> list[np.ndarray]:
    """audio [N] -> pieces of at most ``longest_s`` seconds, which put together are the whole.

    Each but the last ends in the quietest fifth of a second of its longest possible second half.

    >>> audio = np.ones(5 * 16000, np.float32)
    >>> audio[40000:44000] = 0  # a pause at 2.5 s
    >>> [len(piece) / 16000 for piece in cut_at_pauses(audio, longest_s=4)]
    [2.6, 2.4]
    """
    longest = max(2 * QUIET * FRAME, int(longest_s * SAMPLE_RATE) // FRAME * FRAME)
    pieces = []
    while len(audio) > longest:
        half = longest // FRAME // 2 * FRAME
        energy = np.square(audio[half:longest], dtype=np.float64).reshape(-1, FRAME).sum(1)
        quiet = np.convolve(energy, np.ones(QUIET), "valid")
        cut = half + (int(quiet.argmin()) + QUIET // 2) * FRAME
        pieces.append(audio[:cut])
        audio = audio[cut:]
    return [*pieces, audio]
