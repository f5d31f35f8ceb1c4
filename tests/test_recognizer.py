"""What a recogniser does when a batch does not fit into the memory."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from src.recognizer import Recognizer


def recognizer(recognize):
    """One that answers as it is told to."""
    made = Recognizer(model=None, text_encoder=None, search=None)
    made.recognize = recognize
    return made


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 TiB"),
        RuntimeError(
            "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
        ),
        MemoryError(),
    ],
)
def test_a_batch_too_large_for_the_memory_is_halved(error):
    def of_limited_memory(batch):
        if batch["audio"].numel() > 32000:
            raise error
        return [SimpleNamespace(id=i, text=i) for i in batch["utterance_id"]]

    lengths = torch.tensor([64000, 16000, 16000, 8000, 8000])
    batch = {"utterance_id": list("abcde"), "audio": torch.zeros(5, 64000), "audio_lengths": lengths}
    transcripts, too_long = recognizer(of_limited_memory).recognize_in_memory(batch)
    assert [t.id for t in transcripts] == list("bcde")
    assert too_long == {"a": 4.0}


def test_other_errors_of_a_model_are_not_taken_for_a_lack_of_memory():
    def broken(batch):
        raise RuntimeError("shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="shapes"):
        recognizer(broken).recognize_in_memory({})
