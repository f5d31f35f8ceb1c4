"""LibriSpeech (Panayotov et al., 2015): 960 hours of read English, in OpenSLR's tree or a copy of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from src.datasets.index import Entry, Skipped
from src.datasets.speech_dataset import SpeechDataset
from src.datasets.tree import find_below
from src.utils.audio import AUDIO_SUFFIXES
from src.utils.errors import TextError, UserError
from src.utils.files import read_text


class LibriSpeechDataset(SpeechDataset):
    """``PART/SPEAKER/CHAPTER/SPEAKER-CHAPTER-NUMBER.flac`` beside ``SPEAKER-CHAPTER.trans.txt``.

    ``parts``: one name or several, e.g. ``["train-clean-100", "train-clean-360"]``. Each is looked for in
    ``root`` and at most 3 levels below it, so copies with extra nesting (Kaggle's) work as they are. An id is
    the utterance's own name, e.g. ``84-121123-0000``; the speaker is the folder's name.

    Raises ``UserError`` for a part that is not there. A line without a recording, or a recording without a
    line, is in ``skipped``, and so is a chapter whose lines cannot be read.
    """

    def __init__(self, root: str | Path, parts: str | Sequence[str], **limits) -> None:
        parts = [parts] if isinstance(parts, str) else list(dict.fromkeys(parts))
        if not parts:
            raise UserError("parts is empty; name at least one, e.g. train-clean-100")
        entries: list[Entry] = []
        skipped: list[Skipped] = []
        for part in parts:
            folder = find_below(
                Path(root), lambda f, part=part: f.name == part and any(f.glob("*/*/*.trans.txt"))
            )
            if folder is None:
                raise UserError(
                    f"root={root}: no {part}/SPEAKER/CHAPTER/*.trans.txt in it; correct root or parts, or "
                    f"run: python scripts/download_librispeech.py {part}"
                )
            for transcript in sorted(folder.glob("*/*/*.trans.txt")):
                _read_chapter(transcript, entries, skipped)
        super().__init__(entries, skipped, name="librispeech-" + "-".join(parts)[:100], **limits)


def _read_chapter(transcript: Path, entries: list[Entry], skipped: list[Skipped]) -> None:
    """Adds the recordings of one chapter, in the order of their numbers."""
    files: dict[str, Path] = {}
    for file in sorted(transcript.parent.iterdir()):
        if file.suffix.lower() not in AUDIO_SUFFIXES:
            continue
        if file.stem in files:
            reason = f"{file}: {files[file.stem].name} has the same id; keep one of them"
            skipped.append(Skipped(file.stem, str(file), reason))
        else:
            files[file.stem] = file
    texts = {}
    try:
        for line in read_text(transcript).splitlines():
            name, _, text = line.partition(" ")
            if name:
                texts[name] = text.strip()
    except TextError as error:
        skipped += [Skipped(name, str(file), str(error)) for name, file in sorted(files.items())]
        return
    speaker = transcript.parent.parent.name
    for name in sorted(texts.keys() | files.keys()):
        if name not in files:
            skipped.append(
                Skipped(name, str(transcript), f"{transcript} lists it, but there is no recording of it")
            )
        elif name not in texts:
            skipped.append(
                Skipped(name, str(files[name]), f"{files[name]}: {transcript.name} has no line for it")
            )
        else:
            entries.append(Entry(name, str(files[name]), texts[name], speaker))
