"""The notebook runs from first to last cell with one link and no other touch, against a loopback server."""

from __future__ import annotations

import ast
import io
import os
import re
import sys
import zipfile
from pathlib import Path

import nbformat
import pytest
from IPython.core.inputtransformer2 import TransformerManager
from nbclient import NotebookClient
from support.loopback import file_server, serve

ROOT = Path(__file__).resolve().parents[2]
NEEDED = ("inference.py", "calc_metrics.py", "src", "scripts", "samples", "checkpoints", "requirements.txt")


def notebook() -> nbformat.NotebookNode:
    return nbformat.read(ROOT / "demo.ipynb", as_version=4)


def code(book: nbformat.NotebookNode) -> list[str]:
    return [cell.source for cell in book.cells if cell.cell_type == "code"]


def zipped_samples(transcriptions: bool) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for path in sorted((ROOT / "samples").rglob("*")):
            name = path.relative_to(ROOT / "samples")
            if path.is_file() and (transcriptions or name.parts[0] == "audio"):
                file.write(path, Path("my recordings", name))
    return buffer.getvalue()


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that looks like the clone but keeps what is written; pip may neither download nor install."""
    for name in NEEDED:
        if (ROOT / name).exists():
            (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    settings = {"PIP_NO_INDEX": "1", "PIP_REQUIRE_VIRTUALENV": "1", "IPYTHONDIR": str(tmp_path / ".ipython")}
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    return tmp_path


def execute(book: nbformat.NotebookNode, folder: Path) -> str:
    """Runs the notebook in ``folder`` and returns all that it printed."""
    NotebookClient(book, timeout=None, resources={"metadata": {"path": str(folder)}}).execute()
    outputs = [output for cell in book.cells for output in cell.get("outputs", [])]
    return "".join(output.get("text", "") for output in outputs)


def test_the_cells_are_clean_and_ask_for_one_thing() -> None:
    book = notebook()
    nbformat.validate(book)
    cells = code(book)
    for source in cells:
        ast.parse(TransformerManager().transform_cell(source))
        assert not re.search(r"\b(input|getpass)\(|<[A-Z_]+>", source)
        for script in re.findall(r"!python (\S+)", source):
            assert script in NEEDED or (ROOT / script).is_file()
    assert [source for source in cells if "@param" in source] == ['LINK = ""  # @param {type:"string"}']
    assert not any(cell.get("outputs") for cell in book.cells)


def test_the_link_cells(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    book = notebook()
    book.cells = [cell for cell in book.cells if cell.get("id") in ("clone", "link", "fetch")]
    assert len(book.cells) == 3
    wavs = {path.name for path in (ROOT / "samples/audio").iterdir()}
    with serve(file_server({"/a%20b.zip": zipped_samples(transcriptions=False)})) as (address, _):
        monkeypatch.setenv("LECTERN_DEMO_LINK", f"{address}/a b.zip?x=1&y='2'")
        assert f"{len(wavs)} recordings" in execute(book, clone)
    assert {path.name for path in (clone / "data/link/audio").iterdir()} == wavs
    assert not (clone / "data/link/transcriptions").exists()
    monkeypatch.delenv("LECTERN_DEMO_LINK")
    said = execute(book, clone)
    assert "No link given: using samples/" in said and f"{len(wavs)} transcriptions" in said


@pytest.mark.skipif(
    not (ROOT / "checkpoints/demo/model.safetensors").exists(), reason="needs checkpoints/demo"
)
def test_the_whole_notebook(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve(file_server({"/clips.zip": zipped_samples(transcriptions=True)})) as (address, _):
        monkeypatch.setenv("LECTERN_DEMO_LINK", f"{address}/clips.zip")
        said = execute(notebook(), clone)
    assert "error:" not in said and "Traceback" not in said, said
    assert len(re.findall(r"^WER \d+\.\d\d %", said, re.MULTILINE)) == 3
    ids = {path.stem for path in (ROOT / "samples/audio").iterdir()}
    for name in ("samples", "samples_beam", "link"):
        assert {path.stem for path in (clone / "predictions" / name).glob("*.txt")} == ids
    # The same clips by another way give the same texts.
    for utterance_id in ids:
        beam, link = (clone / f"predictions/{name}/{utterance_id}.txt" for name in ("samples_beam", "link"))
        assert beam.read_text() == link.read_text()
