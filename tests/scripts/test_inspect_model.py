"""scripts/inspect_model.py: pictures, a line for each, and the text."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from scripts import inspect_model
from src.looking.listening import model_name
from src.recognizer import Recognizer
from tests.conftest import ROOT

DEMO, CLIP = ROOT / "checkpoints" / "demo", ROOT / "samples" / "audio" / "linda-en-002-000000.flac"


@pytest.fixture
def show(monkeypatch):
    def call(*words: object) -> None:
        monkeypatch.setattr(sys, "argv", ["inspect_model.py", *map(str, words)])
        inspect_model.main()

    return call


def test_pictures_of_the_demo(show, capsys, tmp_path):
    show(DEMO, CLIP, "--decoder", "beam", "--out", tmp_path / "a" / "b")
    line, text, tokens = capsys.readouterr().out.splitlines()
    file = tmp_path / "a" / "b" / "demo_linda-en-002-000000_ctc.png"
    assert line.startswith(f"{file}: CTC's posteriors") and [*file.parent.iterdir()] == [file]
    assert file.read_bytes().startswith(b"\x89PNG")
    expected = Recognizer.load(DEMO, "beam").transcribe([CLIP])[0]
    assert text == f"text: {expected.text}"
    assert tokens == f"tokens: {len(expected.hypotheses[0].tokens)}"


@pytest.mark.parametrize(
    ("checkpoint", "name"),
    [
        ("saved/las", "las"),
        ("saved/las/checkpoints/step-8", "las_step-8"),
        ("saved/las/checkpoints/best", "las_best"),
        ("checkpoints/demo", "demo"),
    ],
)
def test_pictures_of_two_models_have_two_names(checkpoint, name):
    assert model_name(Path(checkpoint)) == name


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["nowhere", CLIP], "checkpoint nowhere does not exist"),
        ([DEMO, "nothing.wav"], "nothing.wav: no such file"),
        ([DEMO, CLIP, "--decoder", "bean"], "choose one of: beam"),
        ([DEMO, CLIP, "--out", "/dev/null/x"], "choose another --out"),
    ],
)
def test_mistakes_are_one_line(show, capsys, words, line):
    with pytest.raises(SystemExit) as stop:
        show(*words)
    error = capsys.readouterr().err.splitlines()
    assert stop.value.code == 2 and len(error) == 1 and error[0].startswith("error: ") and line in error[0]
