"""A folder of recordings (noises, impulse responses) that augmentations draw from."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import soundfile

from src.utils.audio import SAMPLE_RATE, SOUNDFILE_SUFFIXES
from src.utils.errors import AudioError, UserError
from src.utils.files import files_below
from src.utils.resampling import resample


class AudioFolder:
    """All recordings below ``directory``, sorted, so that a drawn number always means the same file.

    Raises ``UserError`` when there is none. A file that cannot be read raises ``AudioError`` when it is
    drawn: that utterance is skipped, and the report names the file to remove.
    """

    def __init__(self, directory: str | Path) -> None:
        self.files = files_below(Path(directory), SOUNDFILE_SUFFIXES)
        if not self.files:
            wanted = " ".join(sorted(SOUNDFILE_SUFFIXES))
            raise UserError(f"{directory}: no recordings ({wanted}) in it; give a folder with some")

    def draw(self, rng: np.random.Generator, num_samples: int | None = None) -> np.ndarray:
        """The first channel of a random file, [N] float32: whole, or a random excerpt of ``num_samples``.

        Only the excerpt is read from the disk; a file shorter than that repeats.
        """
        path = self.files[rng.integers(len(self.files))]
        try:
            with soundfile.SoundFile(path) as file:
                if num_samples is not None:
                    wanted = math.ceil(num_samples * file.samplerate / SAMPLE_RATE)
                    file.seek(int(rng.integers(max(1, file.frames - wanted + 1))))
                else:
                    wanted = -1
                audio = file.read(wanted, dtype="float32", always_2d=True)[:, 0]
                rate = file.samplerate
        except (OSError, RuntimeError) as error:  # soundfile's own errors are RuntimeErrors
            raise AudioError(f"{path}: cannot be read ({error}); remove it") from error
        if audio.size == 0 or not np.isfinite(audio).all():
            raise AudioError(f"{path}: empty, or not a number somewhere; remove it")
        if rate != SAMPLE_RATE:
            audio = resample(audio, rate, SAMPLE_RATE)
        return audio if num_samples is None else np.resize(audio, num_samples)
