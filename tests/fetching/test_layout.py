"""Whatever the arrangement of a shared folder, the recordings and their texts are found."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from src.fetching.layout import find_data_dirs, lay_out, unpack_all
from src.utils.errors import UserError
from src.utils.files import audio_files


def make(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    return root


def tree(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


@pytest.mark.parametrize("prefix", ["", "deep/in/it/"])
def test_the_folders_with_audio(tmp_path: Path, prefix: str) -> None:
    make(tmp_path, f"{prefix}audio/s1/a.wav", f"{prefix}audio/audio/b.FLAC", f"{prefix}more/audio/c.mp3")
    assert find_data_dirs(tmp_path) == [tmp_path / prefix, tmp_path / prefix / "more"]


def test_audio_itself_empty_audio_and_no_audio(tmp_path: Path) -> None:
    make(tmp_path, "x/audio/a.wav", "empty/audio/readme.txt", "plain/a.wav", "plain/.hidden.wav")
    assert find_data_dirs(tmp_path / "x/audio") == [tmp_path / "x"]
    assert find_data_dirs(tmp_path / "empty") == []
    assert find_data_dirs(tmp_path / "plain") == []
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


def test_linked_folders_are_followed_and_broken_links_are_listed(tmp_path: Path) -> None:
    make(tmp_path, "elsewhere/1.wav", "elsewhere/.hidden/2.wav", "audio/z/3.wav")
    (tmp_path / "audio/a").symlink_to(tmp_path / "audio/z")  # reached by its own name already
    (tmp_path / "audio/b").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "audio/broken.wav").symlink_to("/nonexistent")
    names = [file.relative_to(tmp_path / "audio").as_posix() for file in audio_files(tmp_path / "audio")]
    assert names == ["b/1.wav", "broken.wav", "z/3.wav"]


@pytest.mark.parametrize("name", ["recording", "audio", "unpacked"])
def test_recordings_that_lie_where_the_output_goes_stay(tmp_path: Path, name: str) -> None:
    out = make(tmp_path / "m", *(f"{name}/{clip}.flac" for clip in "abc"))
    if name == "audio":
        with pytest.raises(UserError, match="already there"):
            lay_out(out / "audio/a.flac", out)
    else:
        lay_out(out / name / "a.flac", out)
        assert [file.name for file in audio_files(out / "audio")] == ["a.flac"]
    assert all((out / name / f"{clip}.flac").read_bytes() == b"x" for clip in "abc")


def test_a_source_in_the_folder_that_would_be_emptied_is_refused(tmp_path: Path) -> None:
    kept = make(tmp_path / "out/.downloads/layout", "a.wav")
    with pytest.raises(UserError, match="is emptied first"):
        lay_out(kept / "a.wav", tmp_path / "out")
    assert tree(kept) == ["a.wav"]


def test_several_audio_folders_are_all_laid_out(tmp_path: Path, capsys) -> None:
    names = ("audio/a.wav", "s/audio/a.wav", "s/transcriptions/a.txt", "s/t/audio/a.wav", "demo.wav")
    data = make(tmp_path / "data", *names)
    for _ in range(2):
        out = lay_out(data, tmp_path / "out")
        ids = [file.relative_to(out / "audio").as_posix() for file in audio_files(out / "audio")]
        assert ids == ["audio/a.wav", "s/audio/a.wav", "s/t/audio/a.wav"]
        assert (out / "transcriptions/s/audio/a.txt").exists()
    assert "1 recordings outside audio/ are left out, 'demo.wav'" in capsys.readouterr().out
    assert tree(data) == sorted(names)


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
    assert tree(unpack_all(shared, tmp_path / "out")) == ["one.zip/audio/a.wav", "two.zip/audio/a.wav"]
    with zipfile.ZipFile(tmp_path / "outer.zip", "w") as file:
        file.write(shared / "one.zip", "one.zip")
    assert tree(unpack_all(tmp_path / "outer.zip", tmp_path / "out")) == ["audio/a.wav"]


def test_archives_beside_recordings_are_named(tmp_path: Path, capsys) -> None:
    kept = make(tmp_path / "kept", "a.wav")
    with zipfile.ZipFile(kept / "more.zip", "w") as file:
        file.writestr("b.wav", "b")
    assert unpack_all(kept, tmp_path / "unused") == kept
    assert "1 archives beside the recordings stay packed: 'more.zip'" in capsys.readouterr().out


@pytest.mark.parametrize("names", [("spk1.zip", "spk2.zip"), ("speech.part1.zip", "speech.part2.zip")])
def test_no_archive_of_several_is_lost(tmp_path: Path, names: tuple[str, str]) -> None:
    (tmp_path / "shared").mkdir()
    for name in names:
        with zipfile.ZipFile(tmp_path / "shared" / name, "w") as file:
            file.writestr("audio/a.wav", name)
            file.writestr("transcriptions/a.txt", name)
    out = lay_out(unpack_all(tmp_path / "shared", tmp_path / "unpacked"), tmp_path / "out")
    for name in names:
        assert (out / f"audio/{name}/audio/a.wav").read_text() == name
        assert (out / f"transcriptions/{name}/audio/a.txt").read_text() == name


def test_archives_in_an_archive_share_one_limit(tmp_path: Path) -> None:
    inner = tmp_path / "in"
    inner.mkdir()
    for name in "abc":
        with zipfile.ZipFile(inner / f"{name}.zip", "w", zipfile.ZIP_DEFLATED) as file:
            file.writestr("zeros.wav", bytes(400_000))
    assert len(audio_files(unpack_all(inner, tmp_path / "all", budget=1_200_000))) == 3
    with pytest.raises(UserError, match="archive bomb"):
        unpack_all(inner, tmp_path / "less", budget=1_000_000)
