"""The synthetic corpus: disjoint splits, the same bytes for a seed, resumable, readable by anyone."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from src.synthetic_speech import espeak
from src.synthetic_speech.corpus import SPLITS, Settings, make_corpus
from src.synthetic_speech.espeak import Voice, resample, speak
from src.synthetic_speech.grammar import STYLES, cardinal, ordinal, sentence
from src.synthetic_speech.sentences import ALPHABET, grammar_sentences, split_of, text_sentences
from src.synthetic_speech.voices import ACCENT_SHARES, MEN, WOMEN, draw_voices
from src.text_encoder import normalize
from src.utils.errors import UserError

SMALL = Settings(utterances=60, dev_utterances=6, test_utterances=8, voices=10, seed=3, style="mixed")
SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "make_synthetic_corpus.py"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def transcripts(folder: Path) -> set[str]:
    return {path.read_text().strip() for path in (folder / "transcriptions").iterdir()}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("corpus") / "made"
    make_corpus(out, SMALL, processes=1)
    return out


def test_layout_and_audio_format(corpus: Path) -> None:
    for split, size in zip(SPLITS, (60, 6, 8), strict=True):
        audio = {path.stem: path for path in (corpus / split / "audio").iterdir()}
        assert len(audio) == size
        assert audio.keys() == {path.stem for path in (corpus / split / "transcriptions").iterdir()}
        rows = [row.split("\t") for row in (corpus / split / "MANIFEST.tsv").read_text().splitlines()]
        assert rows[0] == ["id", "duration_s", "speaker", "transcript"]
        assert {row[0] for row in rows[1:]} == audio.keys()
        for name, duration, speaker, transcript in rows[1:]:
            info = soundfile.info(audio[name])
            assert (info.samplerate, info.channels, info.subtype) == (16_000, 1, "PCM_16")
            assert abs(info.duration - float(duration)) < 1e-3
            assert name.startswith(speaker)
            assert (corpus / split / "transcriptions" / f"{name}.txt").read_text() == transcript + "\n"
            assert normalize(transcript) == transcript
            samples, _ = soundfile.read(audio[name])
            assert 0.5 < len(samples) / 16_000 < 12
            assert np.abs(samples).max() < 1 and samples.std() > 0.005


def test_splits_share_neither_sentences_nor_voices(corpus: Path) -> None:
    record = json.loads((corpus / "corpus.json").read_text())
    assert not any(record["shared"].values())
    for a, b in (("train", "dev"), ("train", "test"), ("dev", "test")):
        assert not transcripts(corpus / a) & transcripts(corpus / b)
        assert not set(record["splits"][a]["variants"]) & set(record["splits"][b]["variants"])


def test_same_bytes_from_two_processes_and_in_another_order(corpus: Path, tmp_path: Path) -> None:
    make_corpus(tmp_path / "again", SMALL, processes=2)
    assert contents(tmp_path / "again") == contents(corpus)


def test_an_interrupted_run_goes_on(corpus: Path, tmp_path: Path) -> None:
    made = contents(corpus)
    for path in list(corpus.rglob("*.flac"))[::2] + list(corpus.rglob("*.txt"))[::3]:
        path.unlink()
    (corpus / "dev" / "MANIFEST.tsv").unlink()
    next((corpus / "train" / "audio").iterdir()).write_bytes(b"half a fi")
    (corpus / "corpus.json").write_text(json.dumps({"settings": SMALL.record()}))
    assert 0 < make_corpus(corpus, SMALL)["written"] < 74
    assert contents(corpus) == made
    assert make_corpus(corpus, SMALL)["written"] == 0


def test_hours_end_at_the_first_clip_that_reaches_them(tmp_path: Path) -> None:
    settings = Settings(hours=0.02, dev_utterances=1, test_utterances=1, voices=2)
    make_corpus(tmp_path / "c", settings)
    made = contents(tmp_path / "c")
    durations = [soundfile.info(path).duration for path in (tmp_path / "c" / "train" / "audio").iterdir()]
    assert 72 <= sum(durations) < 72 + max(durations)
    assert make_corpus(tmp_path / "c", settings)["written"] == 0
    (tmp_path / "c" / "corpus.json").write_text(
        json.dumps({"settings": settings.record()})
    )  # stopped before the end
    make_corpus(tmp_path / "c", settings)
    assert contents(tmp_path / "c") == made


def test_other_settings_and_foreign_folders_are_refused(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="seed 3, not 4.*--out"):
        make_corpus(corpus, Settings(**{**vars(SMALL), "seed": 4}))
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="other files"):
        make_corpus(tmp_path, SMALL)
    (tmp_path / "corpus.json").write_text("{}")
    with pytest.raises(UserError, match="damaged"):
        make_corpus(tmp_path, SMALL)
    assert (tmp_path / "thesis.txt").read_text() == "mine"


def test_user_text(tmp_path: Path) -> None:
    lines = [f"Chapter {i}: the Café, number {i}!" for i in range(40)] + ["", "'", "привет мир", "word " * 30]
    path = tmp_path / "mine.txt.gz"
    path.write_bytes(gzip.compress("\n".join(lines).encode()))
    parts = text_sentences(path, seed=0)
    everything = [line for part in parts.values() for line in part]
    assert len(everything) == len(set(everything)) == 42  # 40 + "word" * 12 and the * 6 that is left
    assert "chapter seven the cafe number seven" in everything
    out = tmp_path / "out"
    make_corpus(out, Settings(utterances=10, dev_utterances=3, test_utterances=3, voices=2, text=str(path)))
    assert transcripts(out / "train") <= set(parts["train"]) and transcripts(out / "test") <= set(
        parts["test"]
    )
    path.write_bytes(gzip.compress("\n".join(lines[:-1]).encode()))
    with pytest.raises(UserError, match="text_sha256"):
        make_corpus(
            out, Settings(utterances=10, dev_utterances=3, test_utterances=3, voices=2, text=str(path))
        )


UNUSABLE = {
    "latin-1": b"caf\xe9\n" * 20,
    "too short": b"one line\n",
    "truncated gzip": gzip.compress(b"one two\n" * 20, mtime=0)[:-9],
    "no gzip": b"\x1f\x8b no gzip",
    "missing": None,
}


@pytest.mark.parametrize("data", UNUSABLE.values(), ids=UNUSABLE.keys())
def test_unusable_text_is_one_line(tmp_path: Path, data: bytes | None) -> None:
    path = tmp_path / ("t.gz" if data and data[:2] == b"\x1f\x8b" else "t.txt")
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(UserError, match=path.name):
        make_corpus(tmp_path / "out", Settings(utterances=2, text=str(path)))
    assert not (tmp_path / "out").exists()


def test_script_speaks(tmp_path: Path) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess:
        sizes = ["--utterances", "3", "--dev-utterances", "2", "--test-utterances", "2", "--voices", "2"]
        command = [sys.executable, str(SCRIPT), "--out", "c", *sizes, *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)

    assert "made c: 7 clips" in run().stdout
    assert "complete, nothing to do" in run().stdout
    refused = run("--seed", "9")
    assert refused.returncode == 2 and refused.stderr.startswith("error: c: made with seed 0, not 9")
    assert "--voices 0" in run("--voices", "0").stderr


def test_missing_library_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(UserError, match="pip install espeakng-loader"):
        espeak.speak("hello", Voice())


def test_speaking_does_not_depend_on_what_was_said_before() -> None:
    breathy = Voice(variant="f3")  # breath noise, flutter and echo: all the state there is
    first = speak("enter six two five", breathy, seed=1)
    speak("something else", Voice("en-gb-scotland", "klatt4", rate=199))
    np.testing.assert_array_equal(first, speak("enter six two five", breathy, seed=1))
    assert not np.array_equal(first, speak("enter six two five", breathy, seed=2))
    with pytest.raises(UserError, match="no such voice"):
        speak("hello", Voice(accent="tlh-klingon"))
    assert len(speak("", Voice())) == 0


def test_every_voice_speaks() -> None:
    everyone = [variant for sex in (WOMEN, MEN) for split in SPLITS for variant in sex[split]]
    assert len(everyone) == len(set(everyone))
    for variant in everyone:
        assert len(speak("six two", Voice(variant=variant))) > 4000
    for accent in ACCENT_SHARES:
        assert len(speak("six two", Voice(accent=accent))) > 4000
    assert len(set(draw_voices("train", 100, seed=0))) == 100


def test_spelled_a_is_not_the_article() -> None:
    spelled, article = speak("b A c", Voice()), speak("b a c", Voice())
    assert len(spelled) > len(article) * 1.1  # a full "ay", no hurried "uh"


@pytest.mark.parametrize("hertz", [100.0, 1000.0, 7000.0])
def test_resampling_keeps_a_tone(hertz: float) -> None:
    seconds = np.arange(22_050) / 22_050
    fade = np.clip(np.minimum(seconds, seconds[::-1]) * 10, 0, 1)
    resampled = resample((np.sin(2 * np.pi * hertz * seconds) * fade).astype(np.float32))
    middle = np.arange(4000, 12_000)
    np.testing.assert_allclose(resampled[middle], np.sin(2 * np.pi * hertz * middle / 16_000), atol=2e-3)


def test_numbers() -> None:
    assert cardinal(19) == "nineteen" and cardinal(100) == "one hundred"
    assert cardinal(999_999) == "nine hundred ninety nine thousand nine hundred ninety nine"
    assert [ordinal(day) for day in (1, 12, 21, 30)] == ["first", "twelfth", "twenty first", "thirtieth"]


@pytest.mark.parametrize("style", sorted(STYLES))
def test_grammar_is_rich_in_sentences_and_poor_in_words(style: str) -> None:
    drawn = [sentence(np.random.default_rng(i), style) for i in range(3000)]
    words = {word for line in drawn for word in line.lower().split()}
    assert len(words) < 300 and set("".join(words)) <= ALPHABET
    assert len(set(drawn)) > 2400
    assert all(line == " ".join(line.split()) and len(line.split()) < 20 for line in drawn)
    assert all(len(word) == 1 for line in drawn for word in line.split() if word.isupper())


def test_no_word_of_dev_or_test_is_new() -> None:
    def words(split: str, size: int) -> set[str]:
        lines = grammar_sentences(split, "mixed", 0)
        return {word for _ in range(size) for word in next(lines).lower().split()}

    assert words("dev", 200) | words("test", 200) <= words("train", 6000)
    shares = [split_of(f"{cardinal(i)} more or less") for i in range(4000)]
    assert shares.count("train") > 3400 and min(shares.count("dev"), shares.count("test")) > 140
