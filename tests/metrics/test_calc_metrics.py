from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import calc_metrics
from src.metrics import score_folders
from src.utils.errors import UserError


def folder(path: Path, texts: dict[str, str | bytes]) -> Path:
    for name, text in texts.items():
        file = path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> None:
    monkeypatch.setattr(sys, "argv", ["calc_metrics.py", *map(str, arguments)])
    calc_metrics.main()


def test_the_program_from_another_folder(tmp_path: Path) -> None:
    folder(tmp_path / "r", {"a.txt": "It's 2 o'clock.\n", "b/c.txt": "the cat sat"})
    folder(tmp_path / "p", {"a.txt": "it's two o'clock", "b/c.txt": "the bat sat on"})
    command = [
        sys.executable,
        calc_metrics.__file__,
        "--references",
        "r",
        "--predictions",
        "p",
        "--json",
        "o/x.json",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    # 2 of 6 words; 4 of 16 + 11 characters
    assert done.stdout.splitlines()[:2] == ["WER 33.33 %", "CER 14.81 %"]
    result = json.loads((tmp_path / "o" / "x.json").read_text(encoding="utf-8"))
    assert result["wer"] == 2 / 6 and result["cer"] == 4 / 27
    assert result["words"] == {
        "substitutions": 1, "deletions": 0, "insertions": 1, "hits": 5, "reference_length": 6
    }  # fmt: skip
    assert [row["id"] for row in result["utterances"]] == ["a", "b/c"]
    assert result["utterances"][1]["wer"] == 2 / 3


def test_missing_predictions_are_deletions_and_named(tmp_path: Path, monkeypatch, capsys) -> None:
    references = folder(tmp_path / "r", {"a.txt": "one two", "b.txt": "three four", "._a.txt": b"\x00\xff"})
    predictions = folder(tmp_path / "p", {"a.txt": "one two", "z.txt": "nine"})
    run(monkeypatch, "--references", references, "--predictions", predictions)
    out = capsys.readouterr().out
    assert out.startswith("WER 50.00 %\n")
    assert "2 deleted, 0 inserted" in out
    assert "1 without a prediction (counted as deletions): b\n" in out
    assert "1 without a reference (not counted): z\n" in out


def test_wrong_encodings_are_named(tmp_path: Path, monkeypatch, capsys) -> None:
    latin = "café".encode("latin-1")
    references = folder(
        tmp_path / "r", {"a.txt": "one", "b.txt": latin, "c.txt": "caf\u00e9", "d.txt": "\ufeffYes"}
    )
    predictions = folder(tmp_path / "p", {"a.txt": "one", "b.txt": "cafe", "c.txt": latin, "d.txt": "yes"})
    run(monkeypatch, "--references", references, "--predictions", predictions)
    out = capsys.readouterr().out
    assert out.startswith("WER 33.33 %\n")  # of one, cafe, yes: cafe is lost
    assert "unreadable reference (not UTF-8; not counted): b\n" in out
    assert "unreadable prediction (not UTF-8; counted as deletions): c\n" in out


def test_raw_compares_as_written(tmp_path: Path) -> None:
    references = folder(tmp_path / "r", {"a.txt": "Yes,  no\n"})
    predictions = folder(tmp_path / "p", {"a.txt": "yes no"})
    assert score_folders(references, predictions).words.errors == 0
    raw = score_folders(references, predictions, raw=True)
    assert (raw.words.errors, raw.characters.errors, raw.characters.reference_length) == (1, 2, 7)


def test_empty_references_count_insertions(tmp_path: Path, monkeypatch, capsys) -> None:
    references = folder(tmp_path / "r", {"a.txt": "", "b.txt": "..."})
    predictions = folder(tmp_path / "p", {"a.txt": "noise here", "b.txt": ""})
    run(monkeypatch, "--references", references, "--predictions", predictions)
    out = capsys.readouterr().out
    assert out.startswith("WER 200.00 %\n") and "hold no words" in out


def test_worst_utterances(tmp_path: Path, monkeypatch, capsys) -> None:
    texts = {f"{n}.txt": " ".join(["word"] * 9) for n in range(4)}
    outputs = {f"{n}.txt": " ".join(["word"] * (9 - n) + ["x"] * n) for n in range(4)}
    references, predictions = folder(tmp_path / "r", texts), folder(tmp_path / "p", outputs)
    assert [row.id for row in score_folders(references, predictions).worst(9)] == ["3", "2", "1"]
    run(monkeypatch, "--references", references, "--predictions", predictions, "--worst", "1")
    out = capsys.readouterr().out
    assert "\n3: 3 word errors, WER 33.33 %" in out and "\n2: " not in out


def test_a_data_folder_stands_for_its_transcriptions(tmp_path: Path) -> None:
    references = folder(tmp_path / "set", {"transcriptions/a.TXT": "one", "LICENCE.txt": "no transcript"})
    assert [
        row.id for row in score_folders(references, folder(tmp_path / "p", {"a.txt": "one"})).utterances
    ] == ["a"]


@pytest.mark.parametrize(
    ("references", "predictions", "message"),
    [
        ({"a.txt": "x"}, {"b.txt": "x"}, "no id in common"),
        ({"a.txt": "x"}, {"b.wav": b""}, "no .txt files"),
        ({"a.txt": "x"}, {}, "no such folder"),
        ({"a.txt": b"\xff"}, {"a.txt": "x"}, "none of 1 files"),
        ({"a.txt": "x", "a.TXT": "y"}, {"a.txt": "x"}, "a second file for the id a"),
    ],
)
def test_nothing_to_score_is_one_line_and_status_2(
    tmp_path: Path, monkeypatch, capsys, references: dict, predictions: dict, message: str
) -> None:
    folder(tmp_path / "r", references)
    if len(list((tmp_path / "r").iterdir())) < len(references):
        pytest.skip("this file system ignores letter case")
    folder(tmp_path / "p", predictions)
    with pytest.raises(SystemExit) as stopped:
        run(monkeypatch, "--references", tmp_path / "r", "--predictions", tmp_path / "p")
    assert stopped.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == "" and message in captured.err and captured.err.count("\n") == 1


def test_a_baseline_that_is_not_there_is_said_before_anything_else(
    tmp_path: Path, monkeypatch, capsys
) -> None:
    both = folder(tmp_path / "r", {"a.txt": "x"})
    with pytest.raises(SystemExit):
        run(monkeypatch, "--references", both, "--predictions", both, "--baseline", tmp_path / "nowhere")
    captured = capsys.readouterr()
    assert captured.out == "" and "nowhere: no such folder" in captured.err


def test_a_report_that_cannot_be_written(tmp_path: Path, monkeypatch, capsys) -> None:
    both = folder(tmp_path / "r", {"a.txt": "x"})
    with pytest.raises(SystemExit):
        run(monkeypatch, "--references", both, "--predictions", both, "--json", both / "a.txt" / "x.json")
    assert "cannot be written" in capsys.readouterr().err
    with pytest.raises(UserError, match="no such folder"):
        score_folders(tmp_path / "nowhere", both)


def test_a_name_that_is_not_unicode_is_shown_and_counted(tmp_path: Path) -> None:
    both = folder(tmp_path / "r", {"a.txt": "one"})
    try:
        (both / "\udcff.txt").write_text("two")
    except OSError:
        pytest.skip("this file system holds Unicode names only")
    predictions = folder(tmp_path / "p", {"a.txt": "one"})
    command = [sys.executable, calc_metrics.__file__, "--references", both, "--predictions", predictions]
    done = subprocess.run(
        [*command, "--json", tmp_path / "x.json"], capture_output=True, text=True, encoding="utf-8"
    )
    assert done.returncode == 0, done.stderr
    assert "1 without a prediction (counted as deletions): \\udcff\n" in done.stdout
    assert json.loads((tmp_path / "x.json").read_text(encoding="utf-8"))["missing"] == ["\udcff"]


def test_linked_folders_of_transcripts_are_scored(tmp_path: Path) -> None:
    elsewhere, predictions = (folder(tmp_path / name, {"a.txt": "one"}) for name in ("e", "p/spk"))
    (tmp_path / "r").mkdir()
    (tmp_path / "r/spk").symlink_to(elsewhere)
    assert len(score_folders(tmp_path / "r", predictions.parent).utterances) == 1


def test_another_system_on_the_same_references(tmp_path: Path, monkeypatch, capsys) -> None:
    names = [f"{n}.txt" for n in range(40)]
    references = folder(tmp_path / "r", dict.fromkeys(names, "one two three four"))
    ours = folder(tmp_path / "ours", dict.fromkeys(names, "one two three four"))
    theirs = folder(tmp_path / "theirs", dict.fromkeys(names[1:], "one two three for"))  # and one is missing
    where = ["--references", references, "--predictions", ours, "--baseline", theirs]
    run(monkeypatch, *where, "--json", tmp_path / "x.json")
    line, note = capsys.readouterr().out.splitlines()[-4:-2]
    assert "(WER 26.88 %): -26.88 points" in line and line.endswith(": better")
    assert note == f"note: 1 of {theirs} are missing or unreadable (counted as deletions)"
    result = json.loads((tmp_path / "x.json").read_text())["baseline"]
    assert result["missing"] == ["0"]
    low, high = result["wer_difference_interval_95"]
    assert low < -43 / 160 < high <= -0.25
    run(monkeypatch, *where[:4], "--baseline", ours)
    assert (
        "+0.00 points, 95 % interval +0.00 to +0.00 (paired bootstrap): no clear difference"
        in capsys.readouterr().out
    )


@pytest.mark.parametrize(
    "differing,verdict",
    [
        (1, "too few utterances differ in word errors to tell (1; it takes 6)"),
        (5, "too few utterances differ in word errors to tell (5; it takes 6)"),
        (6, "better"),
    ],
)
def test_few_utterances_show_no_difference(tmp_path, monkeypatch, capsys, differing, verdict) -> None:
    """Though an interval of theirs may have no width, or lie on one side of zero."""
    for n in range(differing):
        folder(tmp_path, {f"{who}/{n}.txt": "the cat sat" for who in ("r", "p")})
        folder(tmp_path, {f"b/{n}.txt": "the bat sat"})
    run(
        monkeypatch,
        *("--references", tmp_path / "r", "--predictions", tmp_path / "p", "--baseline", tmp_path / "b"),
        *("--json", tmp_path / "x.json"),
    )
    line = capsys.readouterr().out.splitlines()[-3]
    assert line.endswith(f"-33.33 points, 95 % interval -33.33 to -33.33 (paired bootstrap): {verdict}")
    result = json.loads((tmp_path / "x.json").read_text())["baseline"]
    assert result["utterances_with_other_errors"] == differing
