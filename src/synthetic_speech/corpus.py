"""A synthetic speech corpus on disk: planned in one process, spoken by many, the same bytes for a seed.

Clip i of a split depends on (settings, split, i) alone and is written under a temporary name first, so a run
stopped anywhere goes on where it was, and neither the number of processes nor the order of work shows.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import multiprocessing
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import combinations, cycle, islice
from pathlib import Path

import numpy as np
import soundfile

from src.synthetic_speech.espeak import SAMPLE_RATE, Voice, espeak_version, speak
from src.synthetic_speech.sentences import grammar_sentences, text_sentences
from src.synthetic_speech.voices import draw_voices
from src.utils.errors import UserError
from src.utils.progress import progress_bar
from src.utils.seeding import addressed_rng

VERSION = 1  # raise it when the same settings no longer give the same bytes
SPLITS = ("train", "dev", "test")
TYPICAL_CLIP_S = 2.5


@dataclass(frozen=True)
class Settings:
    """What makes a corpus what it is. ``hours`` or ``utterances`` sizes the training part."""

    hours: float | None = None
    utterances: int | None = None
    dev_utterances: int = 100
    test_utterances: int = 200
    seed: int = 0
    voices: int = 100  # training voices; dev and test have a fifth of that each, at least five
    style: str = "everyday"
    text: str | None = None
    noise: bool = False

    def record(self) -> dict:
        """The settings as ``corpus.json`` keeps them: with the versions and the digest of the text."""
        digest = hashlib.sha256(Path(self.text).read_bytes()).hexdigest() if self.text else None
        own = {name: value for name, value in dataclasses.asdict(self).items() if name != "text"}
        return {**own, "text_sha256": digest, "version": VERSION, "espeak": espeak_version()}


@dataclass(frozen=True)
class Clip:
    """One utterance to be spoken."""

    folder: Path  # OUT/train
    id: str
    speaker: str
    voice: Voice
    sentence: str
    seed: int
    noise: bool

    @property
    def transcript(self) -> str:
        return self.sentence.lower()

    @property
    def audio_path(self) -> Path:
        return self.folder / "audio" / f"{self.id}.flac"

    @property
    def text_path(self) -> Path:
        return self.folder / "transcriptions" / f"{self.id}.txt"

    def duration_s(self) -> float | None:
        """Seconds on disk, None when it is not there yet."""
        try:
            return soundfile.info(self.audio_path).duration if self.text_path.exists() else None
        except soundfile.LibsndfileError:
            return None


def plan(out: Path, settings: Settings, split: str, sentences: Iterable[str]) -> Iterator[Clip]:
    """The clips of one split, a voice of the split for each sentence."""
    seed = settings.seed
    voices = draw_voices(split, settings.voices if split == "train" else max(5, settings.voices // 5), seed)
    for i, sentence in enumerate(sentences):
        rng = addressed_rng(seed, "clip", split, i)
        speaker_index = int(rng.integers(len(voices)))
        voice = voices[speaker_index]
        speaker = f"{voice.variant.lower()}-{voice.accent}-{speaker_index:03d}"
        rate, pitch = round(voice.rate * rng.uniform(0.92, 1.08)), voice.pitch + int(rng.integers(-5, 6))
        voice = dataclasses.replace(voice, rate=rate, pitch=pitch)
        clip_seed = int(rng.integers(2**31))
        yield Clip(out / split, f"{speaker}-{i:06d}", speaker, voice, sentence, clip_seed, settings.noise)


def render(clip: Clip) -> np.ndarray:
    """Speaks a clip, with pauses, silence around it, a level and a background; float32 [N], 16 kHz."""
    rng = addressed_rng(clip.seed, "render")
    words = clip.sentence.split()
    if rng.random() < 0.3:  # a hesitant speaker; a lone comma is a short pause
        words = [word + " ," * (rng.random() < 0.15) for word in words]
    speech = speak(" ".join(words), clip.voice, clip.seed)
    if not len(speech):
        raise UserError(f"{clip.id}: eSpeak NG is silent on {clip.sentence!r}; take the line out")
    rms = np.sqrt(np.mean(speech**2))
    gain = min(10 ** (rng.uniform(-32, -16) / 20) / rms, 0.9 / np.abs(speech).max())
    before, after = (rng.uniform(0.05, 0.3, size=2) * SAMPLE_RATE).astype(int)
    audio = np.pad(speech * gain, (before, after))
    snr_db = rng.uniform(8, 40) if clip.noise else rng.uniform(40, 60)
    return audio + background(len(audio), rng) * (rms * gain * 10 ** (-snr_db / 20))


def background(length: int, rng: np.random.Generator) -> np.ndarray:
    """Noise of unit power whose amplitude falls as 1/f**a, 0 <= a <= 1 (white to red); float32 [length]."""
    size = -(-length // 1024) * 1024  # a prime number of samples would cost ten times the FFT
    spectrum = np.fft.rfft(rng.standard_normal(size, dtype=np.float32))
    spectrum *= np.maximum(np.arange(len(spectrum)), size * 50 / SAMPLE_RATE) ** -rng.uniform(0, 1)
    noise = np.fft.irfft(spectrum)[:length]
    return (noise / np.sqrt(np.mean(noise**2))).astype(np.float32)


def write(clip: Clip) -> float:
    """Writes transcript and audio (16 bit FLAC), each in one step, the audio last; returns seconds."""
    audio = render(clip)
    for path in (clip.text_path, clip.audio_path):
        path.parent.mkdir(parents=True, exist_ok=True)
    replace_text(clip.text_path, clip.transcript + "\n")
    part = part_of(clip.audio_path)
    soundfile.write(part, audio, SAMPLE_RATE, subtype="PCM_16", format="FLAC")
    os.replace(part, clip.audio_path)
    return len(audio) / SAMPLE_RATE


def speak_missing(clips: list[Clip], processes: int, name: str) -> tuple[list[float], list[float]]:
    """Writes the clips that are not on disk; returns the seconds of all and those written now."""
    durations = [clip.duration_s() for clip in clips]
    missing = [i for i, seconds in enumerate(durations) if seconds is None]
    work = [clips[i] for i in missing]
    progress = {"total": len(work), "desc": name, "unit": "clip", "disable": not work}
    if processes == 1 or len(work) < 50:  # starting processes costs more than 50 clips
        made = list(progress_bar(map(write, work), **progress))
    else:
        pool = ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn"))
        try:
            made = list(progress_bar(pool.map(write, work, chunksize=8), **progress))
        except BrokenProcessPool:
            remedy = "a process was killed (out of memory?); run again with --processes 1"
            raise UserError(f"{clips[0].folder}: {remedy}") from None
        finally:
            pool.shutdown(cancel_futures=True)
    for i, seconds in zip(missing, made, strict=True):
        durations[i] = seconds
    return durations, made


def speak_hours(
    planned: Iterator[Clip], hours: float, processes: int, name: str
) -> tuple[list[Clip], list[float], list[float]]:
    """Writes the shortest row of clips that reaches ``hours``; what lies beyond it is deleted."""
    clips: list[Clip] = []
    durations: list[float] = []
    written: list[float] = []
    while sum(durations) < hours * 3600:
        mean_s = sum(durations) / len(durations) if durations else TYPICAL_CLIP_S
        more = list(islice(planned, int((hours * 3600 - sum(durations)) / mean_s * 1.02) + 10))
        seconds, made = speak_missing(more, processes, name)
        clips += more
        durations += seconds
        written += made
    enough = int(np.searchsorted(np.cumsum(durations), hours * 3600)) + 1
    for clip in clips[enough:]:
        clip.audio_path.unlink()
        clip.text_path.unlink()
    return clips[:enough], durations[:enough], written


def make_corpus(out: Path, settings: Settings, processes: int = 1) -> dict:
    """Makes the corpus in ``out``, or what is missing of it.

    Returns what ``corpus.json`` records, plus the clips and seconds written now. Layout:
    ``out/{train,dev,test}/audio/ID.flac``, ``transcriptions/ID.txt`` and ``MANIFEST.tsv`` (id, duration_s,
    speaker, transcript). Raises ``UserError`` when ``out`` holds a corpus of other settings or other files.
    """
    record_path = out / "corpus.json"
    if settings.text:
        own = text_sentences(Path(settings.text), settings.seed)
        sentences = {split: cycle(own[split]) for split in SPLITS}
    else:
        sentences = {split: grammar_sentences(split, settings.style, settings.seed) for split in SPLITS}
    record = open_corpus(out, record_path, settings)
    sizes = {"train": settings.utterances, "dev": settings.dev_utterances, "test": settings.test_utterances}
    clips: dict[str, list[Clip]] = {}
    written: list[float] = []
    for split in SPLITS:
        finished = record.get("splits", {}).get(split, {})
        size = sizes[split] or finished.get("utterances")
        planned = plan(out, settings, split, sentences[split])
        if size:
            clips[split] = list(islice(planned, size))
            durations, made = speak_missing(clips[split], processes, split)
        else:
            clips[split], durations, made = speak_hours(planned, settings.hours, processes, split)
        written += made
        write_manifest(out / split, clips[split], durations)
        record.setdefault("splits", {})[split] = {
            "utterances": len(clips[split]),
            "hours": round(sum(durations) / 3600, 4),
            "speakers": len({clip.speaker for clip in clips[split]}),
            "variants": sorted({clip.voice.variant for clip in clips[split]}),
            "distinct_sentences": len({clip.transcript for clip in clips[split]}),
        }
    record["shared"] = check_disjoint(clips)
    replace_text(record_path, json.dumps(record, indent=2) + "\n")
    return {**record, "written": len(written), "written_s": sum(written)}


def open_corpus(out: Path, record_path: Path, settings: Settings) -> dict:
    """Reads or begins ``corpus.json``; refuses a folder that holds something else."""
    asked = settings.record()
    if record_path.exists():
        try:
            record = json.loads(record_path.read_text(encoding="utf-8"))
            there = dict(record["settings"])
        except (ValueError, KeyError, TypeError):
            raise UserError(f"{record_path}: damaged; delete {out} or choose another --out") from None
        changed = [
            f"{name} {there.get(name)}, not {asked[name]}" for name in asked if there.get(name) != asked[name]
        ]
        if changed:
            raise UserError(f"{out}: made with {'; '.join(changed)}; choose another --out or delete it")
        return record
    if out.is_dir() and any(out.iterdir()) or out.is_file():
        raise UserError(f"{out}: holds other files; choose a new folder for --out")
    out.mkdir(parents=True, exist_ok=True)
    record = {"settings": asked}
    replace_text(record_path, json.dumps(record, indent=2) + "\n")
    return record


def check_disjoint(clips: dict[str, list[Clip]]) -> dict[str, int]:
    """Counts what dev and test share with the other splits; none of it is allowed."""
    shared = {}
    for a, b in combinations(SPLITS, 2):
        shared[f"sentences {a}-{b}"] = len(
            {c.transcript for c in clips[a]} & {c.transcript for c in clips[b]}
        )
        shared[f"variants {a}-{b}"] = len(
            {c.voice.variant for c in clips[a]} & {c.voice.variant for c in clips[b]}
        )
    assert not any(shared.values()), shared
    return shared


def write_manifest(folder: Path, clips: list[Clip], durations: list[float]) -> None:
    rows = [f"{c.id}\t{s:.3f}\t{c.speaker}\t{c.transcript}" for c, s in zip(clips, durations, strict=True)]
    text = "\n".join(["id\tduration_s\tspeaker\ttranscript", *sorted(rows)]) + "\n"
    replace_text(folder / "MANIFEST.tsv", text)


def part_of(path: Path) -> Path:
    return path.with_name(path.name + ".part")


def replace_text(path: Path, text: str) -> None:
    """Writes a text file in one step: a reader, or a run that is stopped, never sees half of it."""
    part_of(path).write_text(text, encoding="utf-8")
    os.replace(part_of(path), path)
