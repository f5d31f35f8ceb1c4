"""The commands of a measured row, filled in, run and compared."""

from __future__ import annotations

import importlib.util
import json
import shlex
from pathlib import Path

import pytest

from src.utils.errors import UserError
from src.utils.hydra_door import compose

ROOT = Path(__file__).resolve().parents[2]
spec = importlib.util.spec_from_file_location("reproduce", ROOT / "scripts" / "reproduce.py")
reproduce = importlib.util.module_from_spec(spec)
spec.loader.exec_module(reproduce)


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """A folder with one row whose commands write the report that calc_metrics.py would."""
    (tmp_path / "results").mkdir()
    row = {
        "scores": {"greedy": [12.5, 6.25]},
        "inputs": {"MY_DATA": "a folder"},
        "commands": ["mkdir out", 'cp MY_DATA/report.json "out/greedy.json"'],
        "reports": {"greedy": "out/greedy.json"},
    }
    (tmp_path / "results" / "toy.json").write_text(json.dumps(row))
    (tmp_path / "data").mkdir()
    monkeypatch.setattr(reproduce, "ROOT", tmp_path)
    monkeypatch.setattr(reproduce.measured, "__defaults__", (tmp_path,))

    def run(wer: float, *arguments: str) -> None:
        (tmp_path / "data" / "report.json").write_text(json.dumps({"wer": wer, "cer": 0.0625}))
        given = ["reproduce.py", "toy", f"MY_DATA={tmp_path / 'data'}", *arguments]
        monkeypatch.setattr("sys.argv", given)
        reproduce.main()

    return run


def test_figures_within_the_tolerance_pass(clone, capsys):
    clone(0.13)
    assert "12.50 / 6.25     13.00 / 6.25" in capsys.readouterr().out


def test_a_wer_that_is_off_ends_with_status_1(clone):
    with pytest.raises(SystemExit) as stop:
        clone(0.20)
    assert stop.value.code == 1


def test_write_keeps_the_new_figures(clone, tmp_path):
    clone(0.20, "--write")
    assert json.loads((tmp_path / "results" / "toy.json").read_text())["scores"] == {"greedy": [20.0, 6.25]}


def test_a_missing_input_is_named():
    with pytest.raises(UserError, match="MY_DATA=FOLDER"):
        reproduce.commands({"commands": ["ls MY_DATA"], "inputs": {"MY_DATA": "a folder"}}, {})


@pytest.mark.parametrize("file", sorted((ROOT / "results").glob("*.json")), ids=lambda file: file.stem)
def test_every_row_says_how_to_measure_it_again(file):
    row = json.loads(file.read_text(encoding="utf-8"))
    assert set(row["reports"]) == set(row["scores"])
    script = reproduce.commands(row, {name: "." for name in row.get("inputs", {})})
    for report in row["reports"].values():
        assert f"--json {Path(report).parent}" in script or "quickstart.sh" in script


def trainings(row: dict) -> list[list[str]]:
    """The words after ``train.py`` of each training of a row."""
    lines = "\n".join(row["commands"]).replace("\\\n", " ").splitlines()
    return [shlex.split(line)[2:] for line in lines if line.startswith("python train.py")]


@pytest.mark.parametrize("file", sorted((ROOT / "results").glob("*.json")), ids=lambda file: file.stem)
def test_every_training_of_a_row_still_composes(file):
    row = json.loads(file.read_text())
    for config, *overrides in trainings(row):
        compose(config.removeprefix("-cn="), overrides)
    assert trainings(row) or row["commands"] == ["bash scripts/quickstart.sh"]
