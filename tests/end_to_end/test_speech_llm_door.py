"""A speech LLM behind the doors, with small random networks."""

from __future__ import annotations

import pytest

pytest.importorskip("transformers")

from src.recognizer import Recognizer  # noqa: E402

from .conftest import door  # noqa: E402
from .test_doors import spoken_error, texts  # noqa: E402


def test_it_is_trained_and_transcribes(corpus, tmp_path):
    data = [
        "datasets=samples",
        f"datasets.train.data_dir={corpus}",
        "trainer.max_steps=20",
        "optimizer.lr=1.0e-2",
    ]
    run = ["+test=tiny_llm", *data, "trainer.evaluate_every_steps=20", f"save_dir={tmp_path}", "run_name=llm"]
    done = door("train.py", "-cn=speech_llm", *run, "model/projector=linear", "writer=[none]")
    # 160 and 32 of the norms, 160 x 32 weights and 32 biases
    assert "5,344 of" in done.stdout and "parameters are trained (projector 5,344)" in done.stdout
    assert "best checkpoint on dev, beam: WER" in done.stdout
    where = [f"checkpoint={tmp_path / 'llm'}", f"data_dir={corpus}", "num_workers=0"]
    door("inference.py", *where, f"save_dir={tmp_path / 'texts'}", "decoder=beam", "+search.beam_size=2")
    recognizer = Recognizer.load(tmp_path / "llm", "beam", "cpu", {"beam_size": 2})
    files = sorted((corpus / "audio").glob("*.flac"))
    expected = {transcript.id: transcript.text for transcript in recognizer.transcribe(files)}
    assert texts(tmp_path / "texts") == expected
    words = tmp_path / "words"
    without = [
        "inference.py",
        *where,
        f"save_dir={tmp_path / 'mute'}",
        f"words_dir={words}",
        "decoder=greedy",
    ]
    assert "does not tell when words were said; add times_from=CHECKPOINT" in spoken_error(*without)
    more = [f"words_dir={words}", "times_from=checkpoints/demo", "longest_s=1", "decoder=greedy"]
    door("inference.py", *where, f"save_dir={tmp_path / 'cut'}", *more)
    recognizer = Recognizer.load(tmp_path / "llm", "greedy", "cpu", times_from="checkpoints/demo")
    for transcript in recognizer.transcribe(files, longest_s=1):
        assert texts(tmp_path / "cut")[transcript.id] == transcript.text
        rows = [line.split(" ") for line in (words / f"{transcript.id}.txt").read_text().splitlines() if line]
        assert [(row[4], float(row[2])) for row in rows] == [(word[0], word[1]) for word in transcript.words]
