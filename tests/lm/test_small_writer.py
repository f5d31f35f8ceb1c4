"""A small language model for speech LLMs: what it practises on is what a speech LLM will ask of it."""

from __future__ import annotations

import random
from itertools import groupby, islice

import pytest
import torch

pytest.importorskip("transformers")

from src.lm.small_writer import SILENCE, Exercises, answer_loss, save_tokenizer, small_network  # noqa: E402
from src.model import SpeechLLM  # noqa: E402
from src.model.encoders import MLPEncoder  # noqa: E402
from src.model.projectors import MLPProjector  # noqa: E402
from src.model.writers import CausalLMWriter  # noqa: E402
from src.text_encoder import ChatTextEncoder  # noqa: E402
from src.transforms import LogMel  # noqa: E402

TEXTS = ["go on", "stop it now", "don't"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A writer as the script leaves it, untrained."""
    folder = tmp_path_factory.mktemp("writer")
    save_tokenizer(folder)
    torch.manual_seed(0)
    small_network(ChatTextEncoder(str(folder)).vocab_size, 32, 2).save_pretrained(folder)
    return folder


def exercises(folder, **settings) -> Exercises:
    encoder = ChatTextEncoder(str(folder))
    return Exercises(TEXTS, encoder, encoder.tokens.index(SILENCE), random.Random(0), **settings)


@torch.no_grad()
def test_tokens_are_as_loud_as_what_a_projector_makes():
    torch.manual_seed(0)
    embeddings = small_network(264, 64, 1).get_input_embeddings().weight
    projected = (
        MLPProjector(stack=1, hidden_dim=32)
        .connect(16, 64)(torch.randn(1, 50, 16), torch.tensor([50]))
        .vectors
    )
    assert float(embeddings.std()) == pytest.approx(1.0, abs=0.05)
    assert float(projected.square().mean()) == pytest.approx(float(embeddings.square().mean()), abs=0.1)


def test_a_prompt_is_four_tokens_beside_the_speech(folder):
    encoder = ChatTextEncoder(str(folder))
    prompt = [[encoder.tokens[i] for i in encoder.prompt[part]] for part in ("before", "after")]
    assert prompt == [["<|user|>"], ["Transcribe the speech to text", "<|end|>", "<|assistant|>"]]
    assert encoder.tokens[encoder.prompt["end"]] == "<|end|>" and encoder.vocab_size == 256 + 5
    assert encoder.decode([encoder.tokens.index(SILENCE), *encoder.encode("it's a")]) == "it's a"


def test_what_is_heard_are_the_tokens_for_a_while_with_silence_about_spaces(folder):
    practice = exercises(folder, errors=0.0, most_repeats=2, most_silence=3)
    tokens = practice.encoder.encode("stop it")
    lasted: dict[str, set[int]] = {}
    for _ in range(500):
        runs = [(one, len(list(run))) for one, run in groupby(practice.heard(tokens))]
        assert [
            one for one, _ in runs if one != practice.silence
        ] == tokens  # no two alike in a row in this text
        for place, (one, length) in enumerate(runs):
            near = [other for other, _ in runs[max(0, place - 1) : place + 2]]
            what = "space" if one == practice.space else "letter"
            if one == practice.silence:
                what = {0: "begin", len(runs) - 1: "end"}.get(place, "pause")
                assert what != "pause" or practice.space in near  # never within a word
            lasted.setdefault(what, set()).add(length)
    ranges = {"begin": 9, "letter": 2, "space": 4, "pause": 3, "end": 3}
    assert lasted == {what: set(range(1, most + 1)) for what, most in ranges.items()}


def test_two_letters_alike_are_heard_as_two(folder):
    practice = exercises(folder, errors=0.0, most_repeats=3)
    tokens = practice.encoder.encode("three")
    for _ in range(100):
        runs = [one for one, _ in groupby(practice.heard(tokens))]
        assert [one for one in runs if one != practice.silence] == tokens


def test_some_tokens_are_misheard_and_some_texts_invented(folder):
    practice = exercises(folder, errors=0.3, most_repeats=1, invented=0.5)
    tokens = practice.encoder.encode("go on")
    same = 0
    for _ in range(2000):
        runs = [one for one, _ in groupby(practice.heard(tokens))]
        same += [one for one in runs if one != practice.silence] == tokens
    # Of four mistakes one, silence, changes no letter; and a letter may be mistaken for itself.
    right = 0.7 + 0.3 / 4 * (1 + 1 / len(practice.letters))
    assert same / 2000 == pytest.approx(right**5, abs=0.05)
    drawn = [practice.text() for _ in range(2000)]
    words = {word for text in TEXTS for word in text.split()}
    assert all(set(text.split()) <= words for text in drawn)
    assert 0.4 < sum(text in TEXTS for text in drawn) / 2000 < 0.8


def test_its_loss_is_that_of_a_speech_llm_whose_projector_says_the_same(folder):
    """By token and by number: one clip after the other against the padded batch."""
    encoder, writer = ChatTextEncoder(str(folder)), CausalLMWriter(str(folder))
    parts = LogMel(16), MLPEncoder(16, dim=8, stack=2), MLPProjector(hidden_dim=8), writer
    model = SpeechLLM(*parts, encoder.vocab_size, encoder.prompt).eval()
    practice = exercises(folder)
    for ids, targets in islice(practice.batches(4), 3):
        loss, right = answer_loss(writer.network, ids, targets)
        sums = counts = hits = 0.0
        for row, asked in zip(ids, targets >= 0, strict=True):
            first = int(asked.nonzero()[0])  # the last token of the prompt
            heard = row[len(model.before) : first + 1 - len(model.after)]
            assert row[: len(model.before)].tolist() == encoder.prompt["before"]
            assert row[first + 1 - len(model.after) : first + 1].tolist() == encoder.prompt["after"]
            answer = row[first + 1 : first + int(asked.sum())]
            outputs = model.answer_log_probs(
                writer.embed(heard)[None],
                torch.tensor([len(heard)]),
                answer[None],
                torch.tensor([len(answer)]),
            )
            sums -= outputs["answer_log_probs"].sum()
            hits += outputs["answer_right"].sum()
            counts += len(answer) + 1
        torch.testing.assert_close(loss, sums / counts, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(right, hits / counts)
