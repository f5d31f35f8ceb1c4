"""The benchmarks run; what they measure is in docs/performance.md."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from benchmarks import families, toy_token_times
from src.datasets.tones import TonesDataset
from src.decoding import Hypothesis
from src.recognizer import Recognizer, Transcript

ROOT = Path(__file__).resolve().parents[1]


def figures_of(module: str, settings: str, file: Path):
    """What ``python -m benchmarks.MODULE SETTINGS --json FILE`` writes."""
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{module}", *settings.split(), "--json", str(file)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(file.read_text())


def test_training_throughput_compares_with_the_packages_that_are_there(tmp_path):
    settings = "--size tiny --clips 1 --seconds 1 --rounds 1 --threads 1 --precisions fp32 --device cpu"
    report = figures_of("training_throughput", settings, tmp_path / "figures.json")
    assert {"lectern", "torchaudio"} <= {figure["encoder"] for figure in report["figures"]}
    assert all(figure["audio_s_per_s"] > 0 for figure in report["figures"]) and report["ratios"]["fp32"] > 0


def test_where_the_letters_of_the_toy_begin():
    """The sound of a clip is silent up to there, and after a space."""
    clip = TonesDataset(3, seed=toy_token_times.SEED)[0]
    starts = toy_token_times.begins(clip.text, clip.id)
    assert len(starts) == len(clip.text)
    for start, letter in zip(starts, clip.text, strict=True):
        near = clip.audio[int(16000 * (start + 0.02)) : int(16000 * (start + 0.06))]
        assert (abs(near).max() > 0.1) == (letter != " ")
    assert abs(clip.audio[: int(16000 * starts[0])]).max() < 0.05
    places = [toy_token_times.place_of("ab c", place) for place in range(4)]
    assert places == ["first letter", "after a letter", "space", "after a space"]


def test_transducer_searches_are_compared_on_a_made_up_model(tmp_path):
    settings = "--vocabularies 29 --predictors stateless --batch 2 --frames 30 --rounds 1 --peer 2"
    found = figures_of("transducer_search", settings, tmp_path / "figures.json")
    rows = {row["search"]: row for row in found}
    assert rows["greedy"]["times_greedy"] == 1 and rows["beam 4"]["utterances_per_s"] > 0
    assert rows["beam 4"]["score"] >= rows["greedy"]["score"]
    # Another search with the same weights and limits finds the same texts.
    assert abs(rows["torchaudio"]["score"] - rows["beam 4"]["score"]) < 0.5


def test_ctc_searches_are_compared_and_none_loses_to_greedy(tmp_path):
    settings = (
        "--posteriors peaky --vocabularies 29 --batch 2 --frames 40 --beams 16 --rounds 1 --clock processor"
    )
    rows = {row["search"]: row for row in figures_of("ctc_search", settings, tmp_path / "figures.json")}
    assert {"greedy", "lectern", "lectern, sure frames folded"} <= set(rows)
    assert all(row["below_greedy"] == 0 for row in rows.values() if row["search"].startswith("lectern"))


def test_families_are_compared_on_a_folder(tmp_path):
    settings = "samples checkpoints/demo:greedy checkpoints/demo:beam --clips 2 --rounds 1"
    figures = figures_of("families", settings, tmp_path / "figures.json")
    assert [*figures] == ["checkpoints/demo:greedy", "checkpoints/demo:beam"]
    assert all(0 < one["behind_the_encoder"] < one["real_time_factor"] for one in figures.values())


def test_how_much_longer_texts_are_than_what_was_said():
    recognizer = Recognizer.load(ROOT / "checkpoints" / "demo")
    found = [
        Transcript("0", "one", [], [Hypothesis([1, 2, 3], 0.0)]),
        Transcript("1", "", [], [Hypothesis([], 0.0)]),
    ]
    assert families.lengths_apart(recognizer, ["ones", "a"], found).tolist() == [-1, -1]
