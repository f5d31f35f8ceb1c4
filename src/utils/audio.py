"""The one sample rate of everything, and what counts as a recording: suffixes by what decodes them."""

from __future__ import annotations

SAMPLE_RATE = 16_000  # Hz; recordings of other rates are resampled as they are read

SOUNDFILE_SUFFIXES = frozenset(".wav .flac .mp3 .ogg .oga .opus .sph .aiff .aif .au .w64 .caf".split())
OTHER_SUFFIXES = frozenset(".m4a .mp4 .aac .webm .wma .mka .amr .3gp".split())
AUDIO_SUFFIXES = SOUNDFILE_SUFFIXES | OTHER_SUFFIXES
