"""CMU AN4 (alphanumeric, 1991): 948 + 130 utterances of names spelled, numbers, dates and commands."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from src.datasets.audio_io import to_mono
from src.datasets.index import Entry, checked_id
from src.datasets.speech_dataset import SpeechDataset
from src.datasets.tree import find_audio, find_below
from src.utils.audio import SAMPLE_RATE
from src.utils.errors import AudioError, UserError
from src.utils.files import read_text

LINE = re.compile(r"(?:<s>)?(?P<text>.*?)(?:</s>)?\s*\((?P<id>[^()\s]+)\)\s*")
DEV_EVERY = 10


class An4Dataset(SpeechDataset):
    """CMU's tree: ``an4/etc/an4_train.{fileids,transcription}``, ``an4/wav/an4_clstk/SPEAKER/ID.sph``.

    ``partition`` is ``train``, ``dev`` or ``test``. The corpus has no dev part: it is cut from the training
    part by speaker, so that no voice is in both. In the alphabetical list of the training speakers the 1st,
    11th, 21st ... are dev (8 of 74 in the whole corpus), the others train.

    ``root`` is ``an4`` or a folder at most 3 levels above it. Recordings may be ``.sph``, ``.wav``, ``.flac``
    or ``.raw`` (16 bit, big-endian, 16 kHz, no header). An id is the path below ``wav/`` without the suffix.
    A line of the list without a transcript gives a recording without a text.

    Raises ``UserError`` for an unknown partition, or when the lists are not there.
    """

    def __init__(self, root: str | Path, partition: str = "train", **limits) -> None:
        if partition not in ("train", "dev", "test"):
            raise UserError(f"partition={partition} is not a part of AN4; choose train, dev or test")
        official = "test" if partition == "test" else "train"
        listed = Path("etc", f"an4_{official}.fileids")
        home = find_below(Path(root), lambda folder: (folder / listed).is_file())
        if home is None:
            raise UserError(
                f"root={root}: no {listed.as_posix()} in it; give the folder that CMU's archive unpacks to "
                "(http://www.speech.cs.cmu.edu/databases/an4/), or take datasets=folders for recordings of your own"
            )
        names = _names(home / listed)
        texts = _transcripts(home / "etc" / f"an4_{official}.transcription")
        if partition != "test":
            dev = set(sorted({_speaker(name) for name in names})[::DEV_EVERY])
            names = [name for name in names if (_speaker(name) in dev) == (partition == "dev")]
        entries = []
        for name in names:
            path = find_audio(home / "wav" / name, (".sph", ".wav", ".flac", ".raw"))
            entries.append(Entry(name, str(path), texts.get(name.rpartition("/")[2]), _speaker(name)))
        super().__init__(entries, name=f"an4-{partition}", **limits)

    def read_audio(self, entry: Entry) -> np.ndarray:
        if not entry.path.endswith(".raw"):
            return super().read_audio(entry)
        try:
            samples = np.fromfile(entry.path, dtype=">i2")
        except OSError as error:
            raise AudioError(f"{entry.path}: cannot be opened ({error.strerror}); copy it again") from None
        return to_mono(samples.astype(np.float32) / 32768, SAMPLE_RATE, entry.path)

    def probe(self, entry: Entry) -> float:
        return (
            len(self.read_audio(entry)) / SAMPLE_RATE if entry.path.endswith(".raw") else super().probe(entry)
        )


def _speaker(name: str) -> str:
    """``an4_clstk/fash/an251-fash-b`` -> ``fash``."""
    return name.split("/")[-2] if "/" in name else name.split("-")[1]


def _names(file: Path) -> list[str]:
    """The ids of a list, each safe to be the path of a file."""
    names = []
    for number, line in enumerate(read_text(file).split("\n"), start=1):
        for name in line.split():
            if "/" not in name and "-" not in name:
                raise UserError(f"{file}:{number}: no speaker in {name[:60]!r}; write FOLDER/SPEAKER/ID")
            names.append(checked_id(name, f"{file}:{number}"))
    return names


def _transcripts(file: Path) -> dict[str, str]:
    """Utterance name -> words, of lines ``<s> YES </s> (an406-fcaw-b)``; the test list has no marks."""
    if not file.is_file():
        raise UserError(f"{file}: no such file; unpack CMU's archive again")
    found = {}
    for number, line in enumerate(read_text(file).splitlines(), start=1):
        match = LINE.fullmatch(line.strip())
        if match is None:
            raise UserError(f"{file}:{number}: no 'WORDS (ID)' in {line[:60]!r}; correct the line")
        found[match["id"]] = match["text"].strip()
    return found
