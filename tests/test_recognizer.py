"""A recogniser between model and text: batches beyond the memory, words and their times."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from support.constructed_transducer import ConstructedTransducer

from src.checkpoint import Checkpoint
from src.decoding import (
    AttentionBeamSearch,
    AttentionGreedySearch,
    CTCBeamSearch,
    CTCGreedySearch,
    Hypothesis,
    NBestRescoring,
    ParaformerBeamSearch,
    ParaformerGreedySearch,
    ParaformerSamplingSearch,
    TransducerBeamSearch,
    TransducerGreedySearch,
)
from src.lm import NGramLM, WordNGramScorer
from src.recognizer import Recognizer
from src.text_encoder import CharTextEncoder
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


def test_one_path_is_no_list_of_recordings():
    with pytest.raises(UserError, match=r"'my.wav' is one recording; give a list of them: \['my.wav'\]"):
        Recognizer(None, None, None).transcribe("my.wav")


def test_a_search_that_does_not_fit_the_model_is_noticed_on_silence():
    checkpoint = Checkpoint.open("checkpoints/demo")
    model, text_encoder = checkpoint.model(), checkpoint.text_encoder()
    Recognizer(model, text_encoder, CTCBeamSearch()).try_out()
    for search, line in (
        (AttentionGreedySearch(), "AttentionGreedySearch is no search for a CTCModel"),
        (CTCGreedySearch(blank=500), "blank=500 must be below"),
    ):
        with pytest.raises(UserError, match=line):
            Recognizer(model, text_encoder, search).try_out()
    with pytest.raises(UserError, match="blank=3 must be 0, the blank of the model"):
        checkpoint.search("greedy", {"blank": 3})


def test_a_compiled_search_is_not_tried_out():
    """It would be compiled for silence."""
    for search in (made := CTCBeamSearch(compile=True)), NBestRescoring(made, []):
        Recognizer(model=None, text_encoder=None, search=search).try_out()


def test_a_search_without_times_gives_no_words():
    made = Recognizer(model=None, text_encoder=SimpleNamespace(tokens="ab"), search=None)
    assert made._words(Hypothesis(tokens=[0, 1], score=0.0)) == []


def constructed(words: list[tuple[str, int, int]], frames: int) -> torch.Tensor:
    """log_probs [1, T, 29] in which each word's letters are spread over its frames, every letter for a frame of 0.9."""
    encoder = CharTextEncoder()
    probs = torch.full((1, frames, encoder.vocab_size), 0.02 / 28)
    probs[..., 0] = 0.98
    for word, start, end in words:
        places = (
            torch.linspace(start + 1, end, len(word)).round().long()
        )  # the space that begins it comes before
        for letter, place in zip("▁" + word, [start, *places.tolist()], strict=True):
            probs[0, place] = 0.1 / 28
            probs[0, place, encoder.tokens.index(letter)] = 0.9
    return probs.log()


@pytest.mark.parametrize("fold_sure", [None, 0.95])
@pytest.mark.parametrize("search", [CTCGreedySearch, CTCBeamSearch])
def test_words_have_the_times_of_a_constructed_alignment(search, fold_sure):
    """The first letter's frame to the last letter's, in frames of 40 ms; confidence: how sure its letters were."""
    words = [("three", 3, 12), ("a", 20, 21), ("letter", 29, 47), ("no", 58, 61)]
    settings = {"fold_sure": fold_sure} if search is CTCBeamSearch else {}
    model = SimpleNamespace(search_inputs=lambda outputs: outputs["frames"], frame_s=0.04)
    made = Recognizer(model, CharTextEncoder(), search(**settings))
    (transcript,) = made.decode({"frames": (constructed(words, 64), torch.tensor([64]))}, ["clip"])
    assert transcript.text == "three a letter no"
    for (text, start, end, confidence), (word, first, last) in zip(transcript.words, words, strict=True):
        assert text == word and confidence == pytest.approx(0.9, abs=0.02)
        assert (start, end) == (round(0.04 * (first + 1), 3), round(0.04 * (last + 1), 3))


@pytest.mark.parametrize("search", [TransducerGreedySearch(), TransducerBeamSearch(4, beam_threshold=10)])
def test_words_of_a_transducer_have_times_and_confidences(search):
    """Each letter has a frame of 40 ms to itself; the space before a word is no part of it."""
    tokens = CharTextEncoder().tokens
    words = [("two", 3, 6), ("a", 20, 21), ("no", 58, 60)]
    spoken = {
        first + place: tokens.index(letter)
        for word, first, _ in words
        for place, letter in enumerate("▁" + word)
    }
    frames = ConstructedTransducer.frames(spoken, 64, len(tokens), probability=0.9)
    transducer = ConstructedTransducer(len(tokens))
    model = SimpleNamespace(search_inputs=lambda outputs: (transducer, *outputs["frames"]), frame_s=0.04)
    (transcript,) = Recognizer(model, CharTextEncoder(), search).decode(
        {"frames": (frames, torch.tensor([64]))}, ["clip"]
    )
    assert transcript.text == "two a no"
    for (text, start, end, confidence), (word, first, last) in zip(transcript.words, words, strict=True):
        assert text == word and confidence == pytest.approx(0.9, abs=0.01)
        assert (start, end) == (round(0.04 * (first + 1), 3), round(0.04 * (last + 1), 3))


@pytest.mark.parametrize("search", [CTCGreedySearch(), NBestRescoring(CTCBeamSearch(), [])])
def test_a_search_of_another_family_is_named(search):
    model = SimpleNamespace(search_inputs=lambda outputs: (None, *outputs["frames"]), frame_s=0.04)
    with pytest.raises(UserError, match="is no search for a SimpleNamespace; give one of its own"):
        Recognizer(model, CharTextEncoder(), search).decode({"frames": (None, None)}, ["clip"])


@pytest.mark.parametrize(
    "search", [ParaformerGreedySearch(), ParaformerBeamSearch(4), ParaformerSamplingSearch()]
)
def test_words_of_slots_have_times_and_confidences(search):
    """A slot for each letter, and its time is its frame; the space before a word is no part of it."""
    tokens = CharTextEncoder().tokens
    spoken = [(3, "▁"), (4, "n"), (6, "o"), (9, "▁"), (9, "a")]
    log_probs = torch.full((1, len(spoken), len(tokens)), 0.01 / (len(tokens) - 1))
    for slot, (_, letter) in enumerate(spoken):
        log_probs[0, slot, tokens.index(letter)] = 0.99
    times = torch.tensor([[frame for frame, _ in spoken]])
    slots = SimpleNamespace(lengths=torch.tensor([len(spoken)]), times=times)
    written = SimpleNamespace(write=lambda *_: (log_probs.log(), slots), ctc_log_probs=lambda _: None)
    model = SimpleNamespace(search_inputs=lambda outputs: (written, *outputs["frames"]), frame_s=0.04)
    frames = torch.zeros(1, 12, 1), torch.tensor([12])
    (transcript,) = Recognizer(model, CharTextEncoder(), search).decode({"frames": frames}, ["clip"])
    assert transcript.text == "no a"
    for found, (word, first, last) in zip(transcript.words, [("no", 4, 6), ("a", 9, 9)], strict=True):
        assert found == (word, round(0.04 * first, 3), round(0.04 * (last + 1), 3), pytest.approx(0.99))


@pytest.mark.parametrize(
    "kind", [AttentionGreedySearch, AttentionBeamSearch, ParaformerGreedySearch, ParaformerBeamSearch]
)
def test_searches_that_take_as_much_are_told_apart_by_what_they_ask_of_a_model(kind):
    def recognizer(model, search):
        made = SimpleNamespace(search_inputs=lambda outputs: (model, *outputs["frames"]), frame_s=0.04)
        return Recognizer(made, CharTextEncoder(), search)

    tokens = len(CharTextEncoder().tokens)
    frames = ConstructedTransducer.frames({}, 8, tokens, probability=0.9)
    outputs = {"frames": (frames, torch.tensor([8]))}
    with pytest.raises(UserError, match=f"{kind.__name__} is no search for a SimpleNamespace"):
        recognizer(ConstructedTransducer(tokens), kind()).decode(outputs, ["clip"])
    speller = SimpleNamespace(speller=None, remember=None, step=None, ctc_log_probs=None)
    for search in (TransducerGreedySearch(), NBestRescoring(TransducerBeamSearch(), [])):
        with pytest.raises(UserError, match="Transducer.*Search is no search for a SimpleNamespace"):
            recognizer(speller, search).decode(outputs, ["clip"])
    assert recognizer(ConstructedTransducer(tokens), TransducerBeamSearch()).decode(outputs, ["clip"])


def test_words_of_a_search_with_a_language_model_have_times_too():
    words = [("the", 2, 9), ("dog", 14, 20)]
    lm = NGramLM.estimate(["the dog", "the cat"], order=2)
    model = SimpleNamespace(search_inputs=lambda outputs: outputs["frames"], frame_s=0.04)
    search = CTCBeamSearch(8, scorers=[(WordNGramScorer(lm, CharTextEncoder().tokens), 0.5)])
    frames = constructed(words, 24), torch.tensor([24])
    (transcript,) = Recognizer(model, CharTextEncoder(), search).decode({"frames": frames}, ["clip"])
    assert [(w[0], w[1], w[2]) for w in transcript.words] == [("the", 0.12, 0.4), ("dog", 0.6, 0.84)]
