"""scripts/toy_inference.py: a picture, a sound, and what each part makes of it."""

from __future__ import annotations

import sys

import pytest
from support.families import recognizer

from scripts import toy_inference
from src.recognizer import Recognizer


@pytest.fixture
def show(monkeypatch):
    def call(*words: object, family: str = "cif") -> None:
        monkeypatch.setattr(sys, "argv", ["toy_inference.py", "run", *map(str, words)])
        monkeypatch.setattr(Recognizer, "load", lambda *_, **__: recognizer(family))
        toy_inference.main()

    return call


@pytest.mark.parametrize(("suffix", "start"), [("png", b"\x89PNG"), ("SVG", b"<?xml"), ("pdf", b"%PDF")])
def test_a_picture_of_each_kind_has_its_sound_beside_it(show, capsys, tmp_path, suffix, start):
    show("--text", "Ab, c!", "--out", tmp_path / "new" / f"toy.{suffix}")
    assert "text      'ab c', 4 tokens" in capsys.readouterr().out
    assert (tmp_path / "new" / f"toy.{suffix}").read_bytes().startswith(start)
    assert (tmp_path / "new" / "toy.flac").read_bytes().startswith(b"fLaC")


def test_without_a_predictor_the_slots_are_ctc_s(show, capsys, tmp_path):
    show("--text", "abc", "--out", tmp_path / "toy.png", family="no predictor")
    shown = capsys.readouterr().out
    assert "slots     [1, " in shown and "weights   " not in shown


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--out", "toy.txt"], "toy.txt: the picture is a .png, .svg or .pdf"),
        (["--out", "toy.flac"], "toy.flac: the picture is a .png, .svg or .pdf"),
        (["--out", "toy"], "toy: the picture is a .png, .svg or .pdf"),
        (["--out", "/dev/null/toy.png"], "choose another --out"),
        (["--text", "1 2"], "has no letters"),
    ],
)
def test_mistakes_are_one_line(show, capsys, monkeypatch, tmp_path, words, line):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        show(*words)
    assert stop.value.code == 2 and line in capsys.readouterr().err
    assert not [*tmp_path.iterdir()]
