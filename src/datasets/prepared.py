"""A data set made ready for a model: augmented audio, normalised text, tokens.

One bad recording never raises: it becomes a ``Skipped``.

Randomness is addressed by (seed, epoch, utterance id): workers, order and resumed runs change nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from src.datasets.index import Skipped
from src.datasets.speech_dataset import SpeechDataset
from src.datasets.text_dataset import TextDataset
from src.text_encoder import TextEncoder, normalize
from src.utils.errors import AudioError, TextError
from src.utils.seeding import addressed_rng


class PreparedDataset(Dataset):
    """Items for ``collate``. Without a text encoder it serves inference: audio and ids only.

    Args:
        dataset: the recordings.
        text_encoder: adds ``text`` (normalised) and ``tokens``; a recording without a usable text is then
            skipped.
        augmentations: ``(audio [N], rng) -> audio [N']``.
        seed: addresses the random numbers.
        spec_draws: how many uniform numbers SpecAugment wants per recording.
        shuffled: whether ``BucketBatchSampler`` shuffles it with this seed, so that it is known what comes next.
    """

    def __init__(
        self,
        dataset: SpeechDataset,
        text_encoder: TextEncoder | None = None,
        augmentations: Callable[[np.ndarray, np.random.Generator], np.ndarray] | None = None,
        seed: int = 0,
        spec_draws: int = 0,
        shuffled: bool = False,
    ) -> None:
        self.dataset = dataset
        self.text_encoder = text_encoder
        self.augmentations = augmentations
        self.seed = seed
        self.spec_draws = spec_draws
        self.shuffled = shuffled

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, address: int | tuple[int, int]) -> dict[str, Any] | Skipped:
        """``(epoch, row)``, or ``row`` for epoch 0."""
        epoch, row = address if isinstance(address, tuple) else (0, address)
        try:
            entry = self.dataset.entry(row)
        except AudioError as error:  # a damaged row of an index that somebody else made
            return Skipped(f"row {row}", self.dataset.name, str(error))
        if self.shuffled:
            self.dataset.prefetch(row, epoch, self.seed)
        try:
            item = self._text(entry.text) if self.text_encoder is not None else {}
            if isinstance(self.dataset, TextDataset):
                return item | {"utterance_id": entry.id}
            audio = self.dataset[row].audio
            if self.augmentations is not None:
                audio = self.augmentations(audio, addressed_rng(self.seed, "augment", epoch, entry.id))
        except (AudioError, TextError) as error:
            return Skipped(entry.id, entry.path, str(error))
        if self.spec_draws:
            draws = addressed_rng(self.seed, "spec_augment", epoch, entry.id).random(
                self.spec_draws, dtype=np.float32
            )
            item["spec_draws"] = torch.from_numpy(draws)
        item |= {
            "utterance_id": entry.id,
            "audio": torch.from_numpy(np.ascontiguousarray(audio, dtype=np.float32)),
        }
        return item

    def has_text(self) -> bool:
        """Whether at least one recording has a usable text; reads no audio."""
        return any(map(self._usable, range(len(self))))

    def _usable(self, row: int) -> bool:
        try:
            return bool(self._text(self.dataset.entry(row).text))
        except (AudioError, TextError):
            return False

    def _text(self, raw: str | None) -> dict[str, Any]:
        if raw is None:
            raise TextError("it has no readable transcript (UTF-8); add one")
        text = normalize(raw)
        return {"text": text, "tokens": torch.tensor(self.text_encoder.encode(text), dtype=torch.int64)}
