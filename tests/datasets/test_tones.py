"""The toy language: what is heard of a letter, and that nothing of a text is heard in its control."""

from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np
import pytest
import torch

from src.datasets.index import Entry
from src.datasets.tones import ALPHABET, EDGE_S, TonesDataset, letters_of, tones_of
from src.loss import ParaformerObjective
from src.model import ParaformerModel, ParallelDecoder
from src.model.encoders import MLPEncoder
from src.model.slots import CIFPredictor
from src.text_encoder import CharTextEncoder
from src.transforms import LogMel
from src.utils.errors import UserError
from src.utils.seeding import addressed_rng


def pieces(text: str, seed: int = 0) -> list[tuple[str, np.ndarray]]:
    """The sound of each letter, cut out of the whole."""
    sound, at, cut = tones_of(text, addressed_rng(seed)), int(EDGE_S * 16000), []
    for letter, samples in letters_of(text, addressed_rng(seed)):
        cut.append((letter, sound[at : at + samples]))
        at += samples
    assert len(sound) == at + int(EDGE_S * 16000)
    return cut


def test_every_letter_is_two_tones_of_its_own_and_the_space_is_silent():
    heard = {}
    for letter, sound in pieces(ALPHABET):
        spectrum = np.abs(np.fft.rfft(sound * np.hanning(len(sound)), 16000))  # a bin a hertz
        heard[letter] = int(spectrum[:1000].argmax()), int(1000 + spectrum[1000:].argmax())
        assert 0.08 * 16000 - 1 <= len(sound) <= 0.16 * 16000
        assert (np.abs(sound).max() > 0.1) == (letter != " ")
    assert heard["a"] == (300, 1200) and heard["z"] == (390, 2600)
    del heard[" "]
    tones = sorted(heard.values())
    assert all(max(abs(a - c), abs(b - d)) > 80 for (a, b), (c, d) in zip(tones, tones[1:], strict=False))


def test_signs_without_a_sound_are_left_out_and_lengths_are_drawn():
    assert [letter for letter, _ in pieces("A-b! 3")] == ["a", "b", " "]
    assert len(tones_of("aaa", addressed_rng(0))) != len(tones_of("aaa", addressed_rng(1)))


def test_a_data_set_is_the_same_every_time_and_another_with_another_seed():
    one, again, other = TonesDataset(5, seed=1), TonesDataset(5, seed=1), TonesDataset(5, seed=2)
    assert [u.text for u in one] == [u.text for u in again] != [u.text for u in other]
    assert all(np.array_equal(a.audio, b.audio) for a, b in zip(one, again, strict=True))
    assert [len(u.audio) / 16000 for u in one] == pytest.approx(one.durations.tolist())


def test_the_control_is_as_long_and_has_heard_nothing_of_the_text():
    sounds, noise = TonesDataset(5, seed=1), TonesDataset(5, seed=1, noise_only=True)
    for said, control in zip(sounds, noise, strict=True):
        assert control.text == said.text and len(control.audio) == len(said.audio)
        assert not np.array_equal(control.audio, said.audio)
    audio = [noise.read_audio(Entry("1-000000", "", text)) for text in ("dad", "zoo yes")]
    assert np.array_equal(audio[0][:4000], audio[1][:4000])


@pytest.mark.parametrize("settings", [{"clips": 0}, {"max_words": 0}])
def test_settings_that_make_no_clip_are_refused(settings):
    with pytest.raises(UserError, match="at least 1"):
        TonesDataset(**settings)


def heard_of(dataset: TonesDataset, frontend: LogMel) -> tuple[torch.Tensor, ...]:
    """features [B, T, F], their lengths, tokens [B, U], their lengths."""
    pad = torch.nn.utils.rnn.pad_sequence
    audio = [torch.from_numpy(utterance.audio) for utterance in dataset]
    texts = [torch.tensor(CharTextEncoder().encode(utterance.text)) for utterance in dataset]
    features = frontend(pad(audio, batch_first=True), torch.tensor([len(clip) for clip in audio]))
    return *features, pad(texts, batch_first=True), torch.tensor([len(text) for text in texts])


def first_pass_accuracy(noise_only: bool) -> float:
    """Of clips that were not in training, after a short one."""
    torch.manual_seed(0)
    frontend = LogMel(20)
    model = ParaformerModel(
        frontend,
        MLPEncoder(20, dim=48, stack=4),
        CIFPredictor(48),
        ParallelDecoder(29, 48, num_layers=1, num_heads=2, dropout=0.0),
        29,
    )
    objective = ParaformerObjective()
    optimizer = torch.optim.Adam(model.parameters(), lr=4e-3)
    clips = heard_of(TonesDataset(480, seed=0, noise_only=noise_only), frontend)
    for step in range(150):
        rows = torch.arange(480)[step % 30 :: 30]
        features, lengths, tokens, counts = (part[rows] for part in clips)
        batch = {"tokens": tokens, "token_lengths": counts}
        result = objective(**batch, **model(features, lengths, **batch))
        optimizer.zero_grad()
        (result["loss_sum"] / result["normalizer"]).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
    model.eval(), objective.eval()
    features, lengths, tokens, counts = heard_of(TonesDataset(200, seed=1, noise_only=noise_only), frontend)
    with torch.no_grad():
        batch = {"tokens": tokens, "token_lengths": counts}
        result = objective(**batch, **model(features, lengths, **batch))
    return float(result["measures"]["first_pass_accuracy"] / result["normalizer"])


def guessed() -> float:
    """Who knows how many letters a text has, and nothing else, has at most so many right: in each place of texts of a
    length always the letter that is there most often."""
    letters = defaultdict(Counter)
    for utterance in TonesDataset(200, seed=1):
        for place, letter in enumerate(utterance.text):
            letters[len(utterance.text), place][letter] += 1
    return sum(max(counts.values()) for counts in letters.values()) / sum(
        counts.total() for counts in letters.values()
    )


def test_what_is_learnt_of_sounds_is_not_learnt_of_noise():
    chance = guessed()
    assert first_pass_accuracy(noise_only=True) < chance < 0.5 < first_pass_accuracy(noise_only=False)
