"""A folder of one's own: ``audio/``, and perhaps ``transcriptions/`` with texts of the same names."""

from __future__ import annotations

from pathlib import Path

from src.datasets.index import Entry, Skipped
from src.datasets.speech_dataset import SpeechDataset
from src.utils.errors import TextError, UserError
from src.utils.files import audio_files, read_text


class CustomDirDataset(SpeechDataset):
    """``DIR/audio/**/ID.wav`` (flac, mp3, ogg ...; any letter case) and ``DIR/transcriptions/**/ID.txt``.

    An id is the path below ``audio/`` without the suffix; links to folders are followed. Two recordings of
    one id (``a.wav`` beside ``a.flac``) are both left out and named, because which one is meant cannot be
    known. A transcript that is not UTF-8 leaves its recording out of training, where it is named, but not out
    of transcription.

    Raises ``UserError`` when there is no such folder or no recording in it.
    """

    def __init__(self, data_dir: str | Path, transcriptions_dir: str | Path | None = None, **limits) -> None:
        if data_dir is None:
            raise UserError("data_dir is not set; add data_dir=FOLDER (a folder with audio/ in it)")
        root = Path(str(data_dir))
        audio_dir = root / "audio"
        if not audio_dir.is_dir():
            if root.name == "audio" and root.is_dir():
                raise UserError(
                    f"data_dir={root} has no audio/ folder; give the folder above it, {root.parent}"
                )
            if root.is_file():
                raise UserError(
                    f"data_dir={root} is a file; scripts/prepare_folder.py {root} --out FOLDER makes a folder of it"
                )
            problem = "has no audio/ folder" if root.is_dir() else "does not exist"
            remedy = f"put the recordings into {audio_dir}"
            if root.is_dir():
                remedy += f", or let scripts/prepare_folder.py {root} --out NEW_FOLDER arrange them"
            raise UserError(f"data_dir={root} {problem}; {remedy}")
        texts_dir = Path(transcriptions_dir) if transcriptions_dir else root / "transcriptions"
        if transcriptions_dir and not texts_dir.is_dir():
            raise UserError(f"transcriptions_dir={texts_dir} does not exist; correct or leave it out")
        files = audio_files(audio_dir)
        if not files:
            raise UserError(f"data_dir={root}: no recordings in {audio_dir} (wav, flac, mp3, ogg, opus ...)")
        by_id: dict[str, list[Path]] = {}
        for file in files:
            by_id.setdefault(file.relative_to(audio_dir).with_suffix("").as_posix(), []).append(file)
        entries, skipped = [], []
        for utterance_id, paths in by_id.items():
            if len(paths) > 1:
                names = " and ".join(path.name for path in paths)
                skipped.append(Skipped(utterance_id, str(paths[0]), f"{names} have one id; keep one of them"))
                continue
            if not _is_unicode(str(paths[0])):
                shown = ascii(utterance_id)
                skipped.append(
                    Skipped(shown, ascii(str(paths[0])), f"{shown}: its name is not UTF-8; rename it")
                )
                continue
            if not paths[0].is_file():
                reason = f"{paths[0]}: a link that leads nowhere, or no ordinary file; replace or remove it"
                skipped.append(Skipped(utterance_id, str(paths[0]), reason))
                continue
            speaker = utterance_id.rpartition("/")[0] or None
            entries.append(Entry(utterance_id, str(paths[0]), _text(texts_dir, utterance_id), speaker))
        super().__init__(entries, skipped, name=root.resolve().name, **limits)


def _text(texts_dir: Path, utterance_id: str) -> str | None:
    file = texts_dir / f"{utterance_id}.txt"
    try:
        return read_text(file).strip() if file.is_file() else None
    except (TextError, OSError):  # OSError: with .txt the name is too long for a file
        return None


def _is_unicode(name: str) -> bool:
    return name.encode(errors="ignore").decode() == name
