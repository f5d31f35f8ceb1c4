"""inference.py when recordings, names, folders or memory are against it: the other texts are written."""

from __future__ import annotations

import re
import shutil

import numpy as np
import pytest
import soundfile as sf

from src.datasets import load_audio
from src.recognizer import Recognizer

from .conftest import ROOT, door, tone_clip, write_corpus
from .test_doors import spoken_error, texts


def run(run_folder, data, save_dir, *more):
    where = [f"checkpoint={run_folder}", f"data_dir={data}", f"save_dir={save_dir}", "num_workers=0"]
    return door("inference.py", *where, *more)


def test_a_killed_run_resumes_with_texts_of_its_own_search_only(run_folder, corpus, tmp_path):
    run(run_folder, corpus, tmp_path)
    for file in tmp_path.glob("*.txt"):
        file.write_text("by greedy\n")
    script = (
        "import os, sys, inference as i\n"
        "write = i.TranscriptFolder.write\n"
        "def die(*arguments):\n"
        "    write(*arguments)\n"
        "    os._exit(9)\n"
        "i.TranscriptFolder.write = die\n"
        "sys.argv[0] = 'inference.py'\n"
        "i.main()\n"
    )
    beam = [f"checkpoint={run_folder}", f"data_dir={corpus}", f"save_dir={tmp_path}", "decoder=beam"]
    door("-c", script, *beam, code=9)
    assert len(texts(tmp_path)) == 1
    door("inference.py", *beam, "resume=true")
    assert texts(tmp_path) == {name: text.lower() for name, text in texts(corpus / "transcriptions").items()}


def test_resume_takes_no_text_of_another_recording(run_folder, tmp_path):
    one, two = (
        write_corpus(tmp_path / "one", ["low", "mid"]),
        write_corpus(tmp_path / "two", ["high"], seed=5),
    )
    run(run_folder, one, tmp_path / "out")
    done = run(run_folder, two, tmp_path / "out", "resume=true")
    assert "1 texts in" in done.stdout and texts(tmp_path / "out") == {"clip-0": "high", "clip-1": "mid"}
    sf.write(two / "audio" / "clip-0.flac", tone_clip("mid low", 3), 16000)
    run(run_folder, two, tmp_path / "out", "resume=true")
    assert texts(tmp_path / "out")["clip-0"].startswith("mid")


def test_words_are_written_and_long_recordings_are_cut(tmp_path):
    """As the recogniser has them; what is cut elsewhere is another transcript for resume=true."""
    clips = [load_audio(clip) for clip in sorted((ROOT / "samples" / "audio").glob("*"))[:2]]
    long = np.concatenate([clips[0], np.zeros(16000, np.float32), clips[1]])
    (tmp_path / "data" / "audio").mkdir(parents=True)
    for name, audio in (("long", long), ("short", clips[0])):
        sf.write(tmp_path / "data" / "audio" / f"{name}.wav", audio, 16000, subtype="FLOAT")
    longest_s = len(clips[0]) / 16000 + 0.5
    settings = [f"longest_s={longest_s}", f"words_dir={tmp_path / 'words'}"]
    run("checkpoints/demo", tmp_path / "data", tmp_path / "out", *settings)
    recognizer = Recognizer.load(ROOT / "checkpoints" / "demo", device="cpu")
    for name, audio in (("long", long), ("short", clips[0])):
        (transcript,) = recognizer.transcribe([audio], longest_s=longest_s)
        assert texts(tmp_path / "out")[name] == transcript.text
        rows = [line.split(" ") for line in (tmp_path / "words" / f"{name}.txt").read_text().splitlines()]
        assert rows == [
            [name, "1", f"{start:.3f}", f"{end - start:.3f}", word, f"{confidence:.3f}"]
            for word, start, end, confidence in transcript.words
        ]
    assert float(rows[-1][2]) > 0.5 and len(rows) > 2
    assert (
        "all 2 were there"
        in run("checkpoints/demo", tmp_path / "data", tmp_path / "out", *settings, "resume=true").stdout
    )
    (tmp_path / "words" / "long.txt").unlink()
    done = run("checkpoints/demo", tmp_path / "data", tmp_path / "out", *settings, "resume=true")
    assert "2 transcripts in" in done.stdout and (tmp_path / "words" / "long.txt").is_file()
    done = run("checkpoints/demo", tmp_path / "data", tmp_path / "out", "resume=true")
    assert "2 texts in" in done.stdout


def test_words_that_nobody_would_see_are_one_line(run_folder, corpus, tmp_path):
    command = ["inference.py", f"checkpoint={run_folder}", f"data_dir={corpus}", f"save_dir={tmp_path / 'a'}"]
    assert "give one" in spoken_error(*command, f"times_from={run_folder}")
    assert "the texts' own folder" in spoken_error(*command, f"words_dir={tmp_path / 'a'}")
    assert "choose another words_dir" in spoken_error(*command, f"words_dir={corpus / 'transcriptions'}")
    assert "longest_s=0" in spoken_error(*command, "longest_s=0")


@pytest.mark.parametrize("content", [b"\xff\xfe\x00broken", b"[1, 2]", b"an old one-line origin"])
def test_a_damaged_origin_means_that_nothing_is_known(run_folder, tmp_path, content):
    data = write_corpus(tmp_path / "data", ["low"])
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".origin").write_bytes(content)
    (tmp_path / "out" / "clip-0.txt").write_text("stale\n")
    run(run_folder, data, tmp_path / "out", "resume=true")
    assert texts(tmp_path / "out")["clip-0"] != "stale"


def test_hostile_recordings_and_names_cost_only_themselves(run_folder, tmp_path):
    data, out = write_corpus(tmp_path / "data", ["mid", "low"]), tmp_path / "out"
    audio = data / "audio"
    flac = bytearray((audio / "clip-0.flac").read_bytes())
    flac[21] |= 15
    flac[22:26] = b"\xff" * 4  # 2 ** 36 samples
    (audio / "endless.flac").write_bytes(flac)
    sf.write(audio / "fast.wav", tone_clip("low", 0), 16000)
    wav = bytearray((audio / "fast.wav").read_bytes())
    wav[24:28] = (2_000_000_000).to_bytes(4, "little")
    (audio / "fast.wav").write_bytes(wav)
    shutil.copy(audio / "clip-0.flac", audio / f"{'n' * 245}.flac")
    shutil.copy(audio / "clip-0.flac", audio / "a.flac")
    (audio / "a.txt").mkdir()
    shutil.copy(audio / "clip-0.flac", audio / "a.txt" / "b.flac")
    shutil.copy(audio / "clip-0.flac", audio / "taken.flac")
    (out / "taken.txt").mkdir(parents=True)
    done = run(run_folder, data, out)
    for name in ("endless", "fast", "taken"):
        assert re.search(rf"skipped {name}: .+", done.stdout), done.stdout
    assert len(re.findall(r"skipped a(\.txt/b)?: .+", done.stdout)) == 1
    found = {file.relative_to(out).as_posix() for file in out.rglob("*.txt") if file.is_file()}
    assert found - {"a.txt", "a.txt/b.txt"} == {"clip-0.txt", "clip-1.txt", f"{'n' * 245}.txt"}
    assert not list(out.rglob("*.unfinished"))


def test_true_transcripts_are_not_overwritten(run_folder, corpus, tmp_path):
    before = texts(corpus / "transcriptions")
    common = ["inference.py", f"checkpoint={run_folder}", f"data_dir={corpus}"]
    for save_dir in (corpus / "transcriptions", corpus / "audio" / ".." / "transcriptions" / "sub"):
        assert "the true transcripts" in spoken_error(*common, f"save_dir={save_dir}")
    line = spoken_error(*common, f"save_dir={tmp_path}", f"references_dir={tmp_path}")
    assert "the true transcripts" in line
    assert texts(corpus / "transcriptions") == before


def test_folders_that_cannot_be_written_are_one_line(run_folder, corpus, tmp_path):
    (tmp_path / "file").write_text("x")
    common = ["inference.py", f"checkpoint={run_folder}", f"data_dir={corpus}"]
    assert "save_dir=" in spoken_error(*common, f"save_dir={tmp_path / 'file'}")
    assert "save_dir=" in spoken_error(*common, f"save_dir={tmp_path / 'file' / 'below'}")
    where = [f"save_dir={tmp_path / 'out'}", f"references_dir={tmp_path / 'file'}"]
    assert "references_dir=" in spoken_error(*common, *where)
    (tmp_path / "odd" / ".origin").mkdir(parents=True)
    assert ".origin" in spoken_error(*common, f"save_dir={tmp_path / 'odd'}")


def test_numbers_as_folders(corpus):
    """YAML reads 2024_05 as 202405 and would write there."""
    assert "save_dir=202405 must be a text that is not empty (a number in quotes" in spoken_error(
        "inference.py", "checkpoint=x", "save_dir=2024_05", f"data_dir={corpus}"
    )
    assert "checkpoint 2024 does not exist" in spoken_error(
        "inference.py", "checkpoint='2024'", "save_dir='2024'", f"data_dir={corpus}"
    )


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("split=null", "split=null must be a text"),
        ("~decoder", "decoder=null must be a text"),
        ("resume=maybe", "resume=maybe must be true or false"),
        ("num_workers=-1", "num_workers=-1 must be a whole number"),
        ("checkpoint=año", "checkpoint año does not exist"),
        ("checkpoint=it's", "checkpoint it's does not exist"),
        ("-m", "-m sweeps over trainings"),
    ],
)
def test_settings_that_cannot_be(corpus, tmp_path, setting, said):
    where = ["checkpoint=nowhere", f"save_dir={tmp_path / 'out'}", f"data_dir={corpus}"]
    assert said in spoken_error("inference.py", *where, setting)


def test_texts_are_no_recordings(run_folder, corpus, tmp_path):
    where = [f"checkpoint={run_folder}", f"save_dir={tmp_path}", "datasets=texts", "split=train"]
    lines = [f"datasets.{part}.texts={corpus}" for part in ("train", "dev")]
    assert "a TextDataset has no recordings" in spoken_error("inference.py", *where, *lines)
