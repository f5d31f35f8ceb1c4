"""What a recogniser does when a batch does not fit into the memory."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from src.decoding import Hypothesis
from src.recognizer import Recognizer
from src.utils.errors import UserError


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


@pytest.mark.parametrize(
    "array",
    [np.array([1e300]), np.array(["a"]), np.zeros((2, 2)), np.array([np.nan]), np.array([3000], np.int16)],
)
def test_arrays_that_are_no_samples_are_named(array):
    with pytest.raises(UserError, match=r"recording 0: expected samples \[N\] as floats in \[-1, 1\]"):
        recognizer(None).transcribe([array])


def test_a_search_without_times_gives_no_words():
    made = Recognizer(model=None, text_encoder=SimpleNamespace(tokens="ab"), search=None)
    assert made._words(Hypothesis(tokens=[0, 1], score=0.0)) == []
