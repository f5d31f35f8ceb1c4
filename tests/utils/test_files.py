"""Writing where somebody said: whole or not at all, never over what is no file, and asked about before the work."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from src.utils.errors import UserError
from src.utils.files import check_output, save_tensors, written_whole


def test_a_file_comes_whole_or_not_at_all(tmp_path):
    file = tmp_path / "new" / "folder" / "x.txt"
    for text in ("one", "two"):
        with written_whole(file) as unfinished:
            unfinished.write_text(text)
    with pytest.raises(RuntimeError), written_whole(file) as unfinished:
        unfinished.write_text("thr")
        raise RuntimeError("something breaks")
    assert file.read_text() == "two" and list(file.parent.iterdir()) == [file]


@pytest.fixture(params=["pipe", "link to a pipe", "folder"])
def no_file(request, tmp_path):
    place = tmp_path / request.param
    os.mkfifo(tmp_path / "pipe")
    if request.param == "folder":
        place.mkdir()
    elif request.param != "pipe":
        place.symlink_to(tmp_path / "pipe")
    return place


def test_what_is_no_plain_file_is_neither_replaced_nor_chosen(no_file):
    before = no_file.lstat()
    with pytest.raises(
        UserError, match=f"--json {no_file}: cannot be written .*no plain file.*another --json"
    ):
        check_output(no_file, "--json")
    with pytest.raises(OSError, match="no plain file"), written_whole(no_file):
        pytest.fail("is not to be written")
    assert no_file.lstat() == before


@pytest.mark.parametrize("name", [".", "..", "file/below", "n" * 300, "file/below/it"])
def test_what_cannot_be_written_is_said_before_the_work(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match=f"^--out {name}: cannot be written .*choose another --out$"):
        check_output(Path(name))


def test_asking_changes_nothing(tmp_path):
    check_output(tmp_path / "file")
    check_output(tmp_path / "new" / "folder" / "file")
    assert not list(tmp_path.iterdir())


def test_tensors_that_cannot_be_written_are_an_error_of_the_system(tmp_path):
    """Which every door speaks; the library has an error of its own for it."""
    for file in (tmp_path, tmp_path / "nowhere" / "x.safetensors"):
        with pytest.raises(OSError, match=str(file)):
            save_tensors({"x": torch.zeros(1)}, file)
