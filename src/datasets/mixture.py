"""Several corpora as one, each shown more or less often than it is large."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from src.datasets.index import Entry, Skipped
from src.datasets.speech_dataset import SpeechDataset, Utterance
from src.utils.errors import UserError
from src.utils.seeding import addressed_rng


class MixtureDataset(SpeechDataset):
    """One data set made of several.

    A weight says how often an epoch shows a corpus: with 2 it is there twice, with 0.5 a half of it, with 2.5
    both. The half is drawn once, addressed by (seed, name): it is the same in every epoch and run. Ids and
    speakers get the prefix ``name/``; the further copies of a row ``name~2/``, ``name~3/`` ..., so that each
    is augmented in its own way.

    Args:
        datasets: name -> data set; null leaves one out (``datasets.train.datasets.own=null``).
        weights: name -> weight >= 0; a name that is not there has weight 1.
        limit: keep N rows, drawn from all corpora.
        min_duration_s, max_duration_s: leave out shorter and longer recordings.
        seed: addresses what is drawn.

    >>> clips = SpeechDataset([Entry("a", "a.wav", duration_s=1.0), Entry("b", "b.wav", duration_s=2.0)])
    >>> MixtureDataset({"clips": clips, "more": clips}, weights={"clips": 2, "more": 0}).ids
    ['clips/a', 'clips/b', 'clips~2/a', 'clips~2/b']
    """

    def __init__(
        self,
        datasets: Mapping[str, SpeechDataset | None],
        weights: Mapping[str, float] | None = None,
        limit: int | None = None,
        min_duration_s: float | None = None,
        max_duration_s: float | None = None,
        seed: int = 0,
    ) -> None:
        self.parts = {name: dataset for name, dataset in datasets.items() if dataset is not None}
        weights = dict(weights or {})
        _check(self.parts, weights, known=datasets)
        if limit is not None and limit < 1:
            raise UserError(f"limit={limit} must be at least 1")
        shown: list[tuple[int, int, np.ndarray]] = []  # (corpus, copy, rows)
        for number, (name, dataset) in enumerate(self.parts.items()):
            weight = float(weights.get(name, 1.0))
            whole, rest = math.floor(weight), weight - math.floor(weight)
            shown += [(number, copy, np.arange(len(dataset))) for copy in range(whole)]
            drawn = addressed_rng(seed, "mixture", name).permutation(len(dataset))[
                : round(rest * len(dataset))
            ]
            shown.append((number, whole, np.sort(drawn)))
        # What a row of the mixture is: [rows, 3] of corpus, copy and the corpus's own row.
        self.table = np.concatenate(
            [
                np.stack([np.full(len(rows), number), np.full(len(rows), copy), rows], axis=1)
                for number, copy, rows in shown
            ]
        ).astype(np.int64)
        durations = [list(self.parts.values())[number].durations[rows] for number, _, rows in shown]
        self.all_durations = np.concatenate(durations)
        keep = np.ones(len(self.table), dtype=bool)
        if min_duration_s is not None:
            keep &= self.all_durations >= min_duration_s
        if max_duration_s is not None:
            keep &= self.all_durations <= max_duration_s
        self.rows = keep.nonzero()[0]
        if limit is not None:
            self.rows = np.sort(addressed_rng(seed, "mixture limit").permutation(self.rows)[:limit])
        self.durations = self.all_durations[self.rows]
        self.name = "mixture"
        self.out_of_range = int((~keep).sum()) + sum(dataset.out_of_range for dataset in self.parts.values())
        self.skipped = [
            Skipped(f"{name}/{item.id}", item.path, item.reason)
            for name, dataset in self.parts.items()
            for item in dataset.skipped
        ]

    @property
    def ids(self) -> list[str]:
        columns = [dataset.ids for dataset in self.parts.values()]
        return [
            f"{self._prefix(number, copy)}/{columns[number][row]}" for number, copy, row in self._addresses()
        ]

    @property
    def texts(self) -> list[str | None]:
        columns = [dataset.texts for dataset in self.parts.values()]
        return [columns[number][row] for number, _, row in self._addresses()]

    def entry(self, row: int) -> Entry:
        number, copy, inner = self.table[self.rows[row]].tolist()
        name, dataset = list(self.parts.items())[number]
        own = dataset.entry(inner)
        speaker = None if own.speaker is None else f"{name}/{own.speaker}"
        return Entry(f"{self._prefix(number, copy)}/{own.id}", own.path, own.text, speaker, own.duration_s)

    def version(self, row: int) -> tuple:
        number, _, inner = self.table[self.rows[row]].tolist()
        return list(self.parts.values())[number].version(inner)

    def __getitem__(self, row: int) -> Utterance:
        """Reads one recording through its own corpus. Raises ``AudioError`` when that fails."""
        number, _, inner = self.table[self.rows[row]].tolist()
        entry = self.entry(row)
        audio = list(self.parts.values())[number][inner].audio
        return Utterance(entry.id, audio, entry.text, entry.speaker, entry.path)

    def _addresses(self) -> Sequence[tuple[int, int, int]]:
        return self.table[self.rows].tolist()

    def _prefix(self, number: int, copy: int) -> str:
        name = list(self.parts)[number]
        return f"{name}~{copy + 1}" if copy else name


def _check(parts: Mapping[str, SpeechDataset], weights: dict[str, float], known: Mapping) -> None:
    if not parts:
        raise UserError("a mixture of no data sets; name at least one under datasets")
    for name in parts:
        if not name or set(name) & set("/\\~") or name in (".", ".."):
            raise UserError(
                f"mixture: {name!r} cannot be the prefix of an id; name the data set with letters and digits"
            )
    for name, weight in weights.items():
        if name not in known:
            raise UserError(f"mixture: weights names {name!r}, but the data sets are: {', '.join(known)}")
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight < math.inf:
            raise UserError(f"mixture: weight {weight!r} of {name!r} must be a number of at least 0")
