"""Data sets of the Hugging Face hub or library; their audio is decoded by Lectern's own code."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np

from src.datasets.audio_io import decode_audio, load_audio, probe_duration, probe_file, to_mono
from src.datasets.index import Entry, checked_id
from src.datasets.speech_dataset import SpeechDataset
from src.utils.audio import SAMPLE_RATE
from src.utils.errors import AudioError, UserError


class HuggingFaceDataset(SpeechDataset):
    """One split of a data set on the hub, in a local folder, or (``from_object``) in memory.

    Args:
        name: ``owner/name``, a folder that ``datasets.load_dataset`` reads, or one that ``save_to_disk``
            wrote.
        split: e.g. ``train`` or ``train[:10%]``.
        config_name: the subset, where the data set has several.
        audio_column: an ``Audio`` column (bytes or paths), or plain dicts ``{"array", "sampling_rate"}``.
        text_column: None for recordings without texts.
        id_column, speaker_column: an id is the row's number where none is given.

    Raises ``UserError`` when the library, the data set or a column is missing.
    """

    def __init__(
        self,
        name: str,
        split: str,
        config_name: str | None = None,
        audio_column: str = "audio",
        text_column: str | None = "text",
        id_column: str | None = None,
        speaker_column: str | None = None,
        **limits,
    ) -> None:
        columns = (audio_column, text_column, id_column, speaker_column)
        self._build(_load(name, split, config_name), f"{name}[{split}]", *columns, **limits)

    @classmethod
    def from_object(
        cls,
        dataset: Any,
        audio_column: str = "audio",
        text_column: str | None = "text",
        id_column: str | None = None,
        speaker_column: str | None = None,
        **limits,
    ) -> HuggingFaceDataset:
        """Wraps a ``datasets.Dataset`` that is there already; the arguments are the constructor's."""
        built = object.__new__(cls)
        built._build(dataset, "dataset", audio_column, text_column, id_column, speaker_column, **limits)
        return built

    def _build(
        self,
        table: Any,
        name: str,
        audio: str,
        text: str | None,
        ids: str | None,
        speaker: str | None,
        **limits,
    ) -> None:
        library = _library()
        if not isinstance(table, library.Dataset):
            problem = f"{type(table).__name__} is no datasets.Dataset"
            raise UserError(f"{name}: {problem}; name one split, without streaming")
        for column in (audio, text, ids, speaker):
            if column is not None and column not in table.column_names:
                known = ", ".join(table.column_names)
                raise UserError(
                    f"{name}: no column {column!r}; set audio_column, text_column ... to one of: {known}"
                )

        def values(column: str | None) -> list:
            return [None] * len(table) if column is None else list(table.with_format(None)[column])

        utterance_ids = (
            [f"{n:08d}" for n in range(len(table))] if ids is None else [str(i) for i in values(ids)]
        )
        _check_ids(utterance_ids, name, ids)
        rows = zip(utterance_ids, values(text), values(speaker), strict=True)
        entries = [
            Entry(i, f"{name}#{n}", None if t is None else str(t), None if s is None else str(s))
            for n, (i, t, s) in enumerate(rows)
        ]
        self.audio_column = audio
        self.table = table.with_format(None).select_columns([audio])
        if isinstance(table.features[audio], library.Audio):
            self.table = self.table.cast_column(audio, library.Audio(decode=False))
        # The fingerprint stands for the content: another one is another index.
        super().__init__(entries, name=f"hugging-face-{table._fingerprint}", **limits)

    def version(self, row: int) -> tuple:
        return self.entry(row).path, self.table._fingerprint

    def _content(self, entry: Entry) -> dict[str, Any]:
        content = self.table[int(entry.path.rpartition("#")[2])][self.audio_column]
        if isinstance(content, str):
            return {"path": content}
        if not isinstance(content, dict):
            raise AudioError(
                f"{entry.path}: {type(content).__name__} in column {self.audio_column!r} is no recording"
            )
        return content

    def read_audio(self, entry: Entry) -> np.ndarray:
        content = self._content(entry)
        if content.get("array") is not None:
            samples = np.asarray(content["array"], dtype=np.float32)
            # Channels are fewer than samples, whichever axis the library put them on.
            samples = samples.T if samples.ndim == 2 and samples.shape[0] < samples.shape[1] else samples
            return to_mono(samples, int(content["sampling_rate"]), entry.path)
        if content.get("bytes") is not None:
            return decode_audio(content["bytes"], entry.path)
        return load_audio(_path(content, entry))

    def probe(self, entry: Entry) -> float:
        content = self._content(entry)
        if content.get("array") is not None:
            return len(self.read_audio(entry)) / SAMPLE_RATE
        if content.get("bytes") is not None:
            return probe_file(io.BytesIO(content["bytes"]), entry.path)
        return probe_duration(_path(content, entry))


def _path(content: dict[str, Any], entry: Entry) -> str:
    if not content.get("path"):
        raise AudioError(f"{entry.path}: has neither bytes, nor a path, nor an array; leave the row out")
    return content["path"]


def _check_ids(ids: list[str], name: str, column: str | None) -> None:
    """An id names a file below save_dir: it must be there once, and must not lead out of it."""
    if len(set(ids)) < len(ids):
        raise UserError(f"{name}: column {column!r} holds a value twice; choose another id_column, or none")
    for value in ids:
        checked_id(value, f"{name}, column {column!r}")


def _library() -> Any:
    try:
        import datasets
    except ImportError:
        raise UserError("Hugging Face data sets need a package; pip install datasets") from None
    return datasets


def _load(name: str, split: str, config_name: str | None) -> Any:
    library = _library()
    folder = Path(name)
    try:
        if (folder / "dataset_dict.json").is_file():
            return library.load_from_disk(name)[split]
        if (folder / "state.json").is_file():
            return library.load_from_disk(name)
        return library.load_dataset(name, config_name, split=split)
    # The library passes on what its builders, the network and the disk raise.
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"{name}: split {split!r} cannot be loaded ({reason}); check name, config_name and split"
        ) from None
