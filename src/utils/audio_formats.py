"""What counts as a recording: suffixes that soundfile reads, and those that need FFmpeg."""

from __future__ import annotations

SOUNDFILE_SUFFIXES = frozenset(".wav .flac .mp3 .ogg .oga .opus .sph .aiff .aif .au .w64 .caf".split())
OTHER_SUFFIXES = frozenset(".m4a .mp4 .aac .webm .wma .mka .amr .3gp".split())
AUDIO_SUFFIXES = SOUNDFILE_SUFFIXES | OTHER_SUFFIXES
