"""Whatever the arrangement of a shared folder, the recordings and their texts are found."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from src.utils.errors import UserError
from src.utils.folders import audio_files, find_data_dir, lay_out, unpack_all


def make(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    return root


def tree(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


@pytest.mark.parametrize("prefix", ["", "deep/in/it/"])
def test_the_nearest_folder_with_audio(tmp_path: Path, prefix: str) -> None:
    make(tmp_path, f"{prefix}audio/s1/a.wav", f"{prefix}audio/audio/b.FLAC", f"{prefix}more/audio/c.mp3")
    assert find_data_dir(tmp_path) == tmp_path / prefix


def test_audio_itself_empty_audio_and_no_audio(tmp_path: Path) -> None:
    make(tmp_path, "x/audio/a.wav", "empty/audio/readme.txt", "plain/a.wav", "plain/.hidden.wav")
    assert find_data_dir(tmp_path / "x/audio") == tmp_path / "x"
    assert find_data_dir(tmp_path / "empty") is None
    assert find_data_dir(tmp_path / "plain") is None
    assert audio_files(tmp_path / "plain") == [tmp_path / "plain/a.wav"]


def test_layout_of_a_data_folder_with_and_without_texts(tmp_path: Path) -> None:
    data = make(tmp_path / "data", "in/audio/s/a.wav", "in/transcriptions/s/a.txt")
    out = lay_out(data, tmp_path / "out")
    assert [p.relative_to(out / "audio") for p in audio_files(out / "audio")] == [Path("s/a.wav")]
    assert (out / "transcriptions/s/a.txt").exists()
    (data / "in/transcriptions/s/a.txt").unlink()
    lay_out(data, out)  # a second run replaces its own links
    assert not (out / "transcriptions").exists()
    assert tree(data) == ["in/audio/s/a.wav"]


def test_layout_of_plain_recordings_keeps_what_is_common(tmp_path: Path) -> None:
    plain = make(tmp_path / "p", "zip name/1/a.wav", "zip name/1/a.txt", "zip name/2/b.ogg", "readme.md")
    out = lay_out(plain, tmp_path / "out")
    assert sorted(p.relative_to(out / "audio").as_posix() for p in audio_files(out / "audio")) == [
        "1/a.wav",
        "2/b.ogg",
    ]
    assert (out / "transcriptions/1/a.txt").exists()


def test_one_recording_does_not_bring_its_neighbours(tmp_path: Path) -> None:
    make(tmp_path, "a.wav", "b.wav")
    for name in ("a.wav", "b.wav"):
        out = lay_out(tmp_path / name, tmp_path / "out")
        assert [p.name for p in audio_files(out / "audio")] == [name]


def test_links_that_lead_in_circles(tmp_path: Path) -> None:
    make(tmp_path, "audio/a.wav")
    (tmp_path / "audio/up").symlink_to(tmp_path)
    assert audio_files(tmp_path) == [tmp_path / "audio/a.wav"]


def test_refusals(tmp_path: Path) -> None:
    make(tmp_path, "text/a.txt", "data/audio/a.wav", "mine/audio/b.wav")
    with pytest.raises(UserError, match="no audio files"):
        lay_out(tmp_path / "text", tmp_path / "out")
    with pytest.raises(UserError, match="no audio files"):
        lay_out(tmp_path / "text/a.txt", tmp_path / "out")
    with pytest.raises(UserError, match="already there"):
        lay_out(tmp_path / "data", tmp_path / "mine")
    assert (tmp_path / "mine/audio/b.wav").exists()


def test_archives_in_a_folder_and_in_an_archive_are_unpacked(tmp_path: Path) -> None:
    shared = make(tmp_path / "shared", "readme.md")
    for name in ("one", "two"):
        with zipfile.ZipFile(shared / f"{name}.zip", "w") as file:
            file.writestr("audio/a.wav", name)
    assert tree(unpack_all(shared, tmp_path / "out")) == ["one/audio/a.wav", "two/audio/a.wav"]
    with zipfile.ZipFile(tmp_path / "outer.zip", "w") as file:
        file.write(shared / "one.zip", "one.zip")
    assert tree(unpack_all(tmp_path / "outer.zip", tmp_path / "out")) == ["audio/a.wav"]
    with_audio = make(tmp_path / "kept", "a.wav")
    assert unpack_all(with_audio, tmp_path / "unused") == with_audio
