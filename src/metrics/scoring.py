"""Scores a folder of predicted transcripts against a folder of references, matched by id, decided once.

Every readable reference counts. Where its prediction is missing or unreadable, all its words are deletions:
leaving hard utterances out never helps. A prediction without a readable reference is named, not counted.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

from src.metrics.error_rates import (
    ErrorCounts,
    bootstrap_interval,
    character_errors,
    paired_interval,
    word_errors,
)
from src.text_encoder import normalize
from src.utils.errors import TextError, UserError
from src.utils.files import files_below, read_text


@dataclass(frozen=True)
class ScoredUtterance:
    """The texts as they were compared, and what they differ in."""

    id: str
    reference: str
    prediction: str
    words: ErrorCounts
    characters: ErrorCounts


@dataclass(frozen=True)
class Score:
    """The result of ``score_folders``. Ids are sorted."""

    utterances: list[ScoredUtterance]
    missing: list[str]  # no prediction: counted as deletions
    unreadable_predictions: list[str]  # the same
    unreadable_references: list[str]  # not counted
    unknown: list[str]  # predictions without a reference: not counted

    @cached_property
    def words(self) -> ErrorCounts:
        return sum((utterance.words for utterance in self.utterances), ErrorCounts())

    @cached_property
    def characters(self) -> ErrorCounts:
        return sum((utterance.characters for utterance in self.utterances), ErrorCounts())

    @cached_property
    def wer_interval(self) -> tuple[float, float]:
        """95 % bootstrap interval of the WER."""
        return bootstrap_interval(utterance.words for utterance in self.utterances)

    def interval_against(self, baseline: Score) -> tuple[float, float]:
        """95 % interval of this WER minus the baseline's; ``ValueError`` where its references are others."""
        return paired_interval(
            *([utterance.words for utterance in score.utterances] for score in (self, baseline))
        )

    def differing_from(self, baseline: Score) -> int:
        """How many utterances have more or fewer word errors than the baseline's."""
        pairs = zip(self.utterances, baseline.utterances, strict=True)
        return sum(ours.words.errors != theirs.words.errors for ours, theirs in pairs)

    def worst(self, number: int) -> list[ScoredUtterance]:
        """The costliest utterances: by word errors, then rate, then id; perfect ones are left out."""
        wrong = [utterance for utterance in self.utterances if utterance.words.errors]
        return sorted(wrong, key=lambda u: (-u.words.errors, -u.words.rate, u.id))[:number]

    def as_dict(self) -> dict:
        """Everything, for JSON. Rates are fractions (0.05 is 5 %)."""
        return {
            "wer": self.words.rate,
            "cer": self.characters.rate,
            "wer_interval_95": list(self.wer_interval),
            "words": {**asdict(self.words), "reference_length": self.words.reference_length},
            "characters": {**asdict(self.characters), "reference_length": self.characters.reference_length},
            "missing": self.missing,
            "unreadable_predictions": self.unreadable_predictions,
            "unreadable_references": self.unreadable_references,
            "unknown": self.unknown,
            "utterances": [
                {**asdict(utterance), "wer": utterance.words.rate, "cer": utterance.characters.rate}
                for utterance in self.utterances
            ],
        }


def transcript_files(directory: str | Path) -> dict[str, Path]:
    """Id (the path without its suffix) -> file, for every ``.txt`` (any letter case) below ``directory``.

    A custom directory stands for its ``transcriptions/``. Hidden files and folders are left out.
    Raises ``UserError`` where there is none, or two files have one id.
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise UserError(f"{directory}: no such folder; give one with ID.txt files")
    if (directory / "transcriptions").is_dir():
        directory = directory / "transcriptions"
    files: dict[str, Path] = {}
    for file in files_below(directory, {".txt"}):
        identifier = file.relative_to(directory).with_suffix("").as_posix()
        if identifier in files:
            raise UserError(f"{file}: a second file for the id {identifier}; keep one of them")
        files[identifier] = file
    if not files:
        raise UserError(f"{directory}: no .txt files below it; give a folder of transcripts")
    return files


def score_folders(references: str | Path, predictions: str | Path, raw: bool = False) -> Score:
    """Reads, normalises (unless ``raw``), matches, aligns. ``UserError`` where nothing can be scored."""
    reference_files, prediction_files = transcript_files(references), transcript_files(predictions)
    common = reference_files.keys() & prediction_files.keys()
    if not common:
        example, other = next(iter(reference_files)), next(iter(prediction_files))
        raise UserError(
            f"{predictions}: no id in common with {references} (there: {example}, here: {other}); "
            "give folders whose files have the same names"
        )
    reference_texts = {name: _read(file, raw) for name, file in reference_files.items()}
    prediction_texts = {name: _read(prediction_files[name], raw) for name in common}
    names = sorted(name for name, text in reference_texts.items() if text is not None)
    if not names:
        raise UserError(
            f"{references}: none of {len(reference_files)} files is readable UTF-8 text; convert them"
        )
    targets = [reference_texts[name] or "" for name in names]
    outputs = [prediction_texts.get(name) or "" for name in names]
    rows = zip(
        names,
        targets,
        outputs,
        word_errors(targets, outputs),
        character_errors(targets, outputs),
        strict=True,
    )
    return Score(
        utterances=[ScoredUtterance(*row) for row in rows],
        missing=[name for name in names if name not in prediction_files],
        unreadable_predictions=sorted(name for name, text in prediction_texts.items() if text is None),
        unreadable_references=sorted(name for name, text in reference_texts.items() if text is None),
        unknown=sorted(prediction_files.keys() - reference_files.keys()),
    )


def _read(file: Path, raw: bool) -> str | None:
    """The text of a file, or None where it cannot be read as UTF-8."""
    try:
        if not file.is_file():
            return None
        text = read_text(file)
    except (OSError, TextError):
        return None
    return " ".join(text.split()) if raw else normalize(text)
