"""A folder of one's own: ids, collisions, partial and broken transcripts, and the index behind it."""

from __future__ import annotations

import os
import pickle

import numpy as np
import pyarrow as pa
import pytest

from src.datasets import CustomDirDataset, Entry, PreparedDataset, Skipped, SpeechDataset
from src.datasets.index import Index, build_index, cache_dir
from src.text_encoder import CharTextEncoder
from src.utils.errors import AudioError, UserError


def write_text(path, content: bytes | str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def test_subfolders_suffixes_and_partial_transcripts(tmp_path, write_tone) -> None:
    write_tone(tmp_path / "audio/b/c.WAV", 0.3, format="WAV")
    write_tone(tmp_path / "audio/a.b.flac", 0.2)
    write_tone(tmp_path / "audio/b/empty.ogg", 0.25)
    write_tone(tmp_path / "audio/.ipynb_checkpoints/c.wav")
    (tmp_path / "audio/notes.txt").write_text("no audio")
    write_text(tmp_path / "transcriptions/b/c.txt", "\ufeff Héllo \r\n")
    write_text(tmp_path / "transcriptions/b/empty.txt", "\n")
    write_text(tmp_path / "transcriptions/nobody.txt", "no recording of it")
    dataset = CustomDirDataset(tmp_path)
    assert dataset.ids == ["a.b", "b/c", "b/empty"] and dataset.skipped == []
    assert dataset.texts == [None, "Héllo", ""]
    assert np.allclose(dataset.durations, [0.2, 0.3, 0.25], atol=1e-3)
    utterance = dataset[1]
    assert (utterance.id, utterance.text, utterance.speaker) == ("b/c", "Héllo", "b")
    assert utterance.audio.shape == (4800,) and utterance.path.endswith("b/c.WAV")


def test_two_recordings_of_one_id_are_both_left_out_and_named(tmp_path, write_tone) -> None:
    for name in ("a.wav", "a.flac", "b.wav", "sub/a.wav"):
        write_tone(tmp_path / "audio" / name)
    dataset = CustomDirDataset(tmp_path)
    assert dataset.ids == ["b", "sub/a"]
    (skipped,) = dataset.skipped
    assert skipped.id == "a" and "a.flac and a.wav" in skipped.reason


@pytest.mark.parametrize("content", ["schön".encode("latin-1"), "hello".encode("utf-16")])
def test_a_transcript_in_another_encoding_is_named_in_training_but_the_recording_stays(
    tmp_path, write_tone, content
) -> None:
    write_tone(tmp_path / "audio/a.wav")
    write_text(tmp_path / "transcriptions/a.txt", content)
    dataset = CustomDirDataset(tmp_path)
    assert dataset.ids == ["a"] and dataset.texts == [None]
    skipped = PreparedDataset(dataset, CharTextEncoder())[0]
    assert isinstance(skipped, Skipped) and "no readable transcript (UTF-8)" in skipped.reason


def test_broken_recordings_cost_nothing_else(tmp_path, write_tone) -> None:
    write_tone(tmp_path / "audio/good.wav")
    write_text(tmp_path / "audio/empty.wav", b"")
    write_text(tmp_path / "audio/garbage.flac", b"garbage" * 100)
    dataset = CustomDirDataset(tmp_path)
    assert dataset.ids == ["good"]
    assert sorted(item.id for item in dataset.skipped) == ["empty", "garbage"]
    assert all(item.id in item.reason for item in dataset.skipped)


def test_linked_folders_are_read_and_broken_links_are_named(tmp_path, write_tone) -> None:
    write_tone(tmp_path / "elsewhere/a.wav")
    write_tone(tmp_path / "data/audio/b.wav")
    write_text(tmp_path / "data/transcriptions/spk/a.txt", "hello")
    (tmp_path / "data/audio/spk").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/up").symlink_to(tmp_path / "data")
    (tmp_path / "data/audio/broken.wav").symlink_to("/nonexistent")
    dataset = CustomDirDataset(tmp_path / "data")
    assert dataset.ids == ["b", "spk/a"] and dataset.texts == [None, "hello"]
    (skipped,) = dataset.skipped
    assert skipped.id == "broken" and "broken.wav: a link that leads nowhere" in skipped.reason


def test_a_folder_that_holds_nothing_is_one_clear_error(tmp_path) -> None:
    for folder, problem in (
        (None, "not set"),
        (tmp_path / "none", "does not exist"),
        (tmp_path, "has no audio/"),
    ):
        with pytest.raises(UserError, match=problem):
            CustomDirDataset(folder)
    (tmp_path / "audio").mkdir()
    with pytest.raises(UserError, match="no recordings"):
        CustomDirDataset(tmp_path)


def test_a_transcriptions_folder_that_is_not_there(tmp_path, write_tone) -> None:
    write_tone(tmp_path / "audio/a.wav")
    with pytest.raises(UserError, match="transcriptions_dir=.*nowhere does not exist"):
        CustomDirDataset(tmp_path, transcriptions_dir=tmp_path / "nowhere")


def test_limits(tmp_path, write_tone) -> None:
    for n in range(1, 6):
        write_tone(tmp_path / f"audio/{n}.wav", seconds=0.1 * n)
    assert CustomDirDataset(tmp_path, limit=2).ids == ["1", "2"]
    dataset = CustomDirDataset(tmp_path, min_duration_s=0.15, max_duration_s=0.45, limit=2)
    assert dataset.ids == ["2", "3"] and dataset.out_of_range == 2 and len(dataset) == 2
    assert dataset[1].id == "3"
    assert len(CustomDirDataset(tmp_path, max_duration_s=0.01)) == 0
    with pytest.raises(UserError, match="limit=0"):
        CustomDirDataset(tmp_path, limit=0)


def test_select_keeps_everything_in_step(tmp_path, write_tone) -> None:
    for n in range(1, 6):
        write_tone(tmp_path / f"audio/{n}.wav", seconds=0.1 * n)
    some = CustomDirDataset(tmp_path, min_duration_s=0.15).select([3, 0])
    assert some.ids == ["5", "2"] and np.allclose(some.durations, [0.5, 0.2])
    assert [some[0].id, some[1].id] == ["5", "2"] and some.select([1]).ids == ["2"]
    assert len(some.select([])) == 0 and some.select([]).ids == []


def test_the_index_is_cached_and_made_anew_when_a_file_changes(tmp_path, write_tone, own_cache) -> None:
    write_tone(tmp_path / "audio/a.wav", 0.2)
    path = write_tone(tmp_path / "audio/b.wav", 0.2)
    first = CustomDirDataset(tmp_path).index.file
    assert own_cache in first.parents and CustomDirDataset(tmp_path).index.file == first
    write_tone(path, 0.4)
    changed = CustomDirDataset(tmp_path)
    assert changed.index.file != first and np.allclose(changed.durations, [0.2, 0.4])
    os.utime(path, ns=(0, 0))
    assert CustomDirDataset(tmp_path).index.file != changed.index.file
    write_text(tmp_path / "transcriptions/a.txt", "new text")
    assert CustomDirDataset(tmp_path).texts == ["new text", None]


def test_a_cached_index_probes_nothing(tmp_path) -> None:
    def probe(entry: Entry) -> float:
        probed.append(entry.id)
        return 1.5

    probed: list[str] = []
    entries = [Entry("a", "a.wav"), Entry("b", "b.wav", duration_s=2.0)]
    for _ in range(2):
        assert build_index(entries, probe=probe).durations.tolist() == [1.5, 2.0]
    assert probed == ["a"]


@pytest.mark.parametrize("damage", [b"", b"ARROW1 and nonsense", None])
def test_a_damaged_index_is_made_anew(damage) -> None:
    entries = [Entry("a", "a.wav", duration_s=1.5), Entry("b", "b.wav", duration_s=2.0)]
    file = build_index(entries).file
    file.write_bytes(file.read_bytes()[:-20] if damage is None else damage)
    assert build_index(entries).durations.tolist() == [1.5, 2.0]


def test_what_failed_is_probed_again_and_nothing_else() -> None:
    def probe(entry: Entry) -> float:
        probed.append(entry.id)
        if entry.id in broken:
            raise AudioError(f"{entry.path}: no ffmpeg")
        return 1.5

    probed, broken = [], {"b", "c"}
    entries = [Entry(name, f"{name}.wav") for name in "abc"]
    assert [item.id for item in build_index(entries, probe=probe).skipped] == ["b", "c"]
    broken.remove("b")
    for _ in range(2):
        index = build_index(entries, probe=probe)
        assert index.column("id") == ["a", "b"] and [item.id for item in index.skipped] == ["c"]
    broken.clear()
    assert len(build_index(entries, probe=probe)) == 3 and probed.count("a") == 1


def test_a_recording_that_is_listed_twice_is_used_once_and_counted() -> None:
    entries = [Entry("a", "a.wav", duration_s=1.0), Entry("b", "b.wav", duration_s=2.0)] * 2
    for _ in range(2):
        index = build_index(entries)
        assert index.column("id") == ["a", "b"]
        assert [item.reason for item in index.skipped] == [
            f"{name}.wav: listed again; used once" for name in "ab"
        ]


def test_the_name_of_an_index_fits_into_a_file_name(own_cache) -> None:
    for name in ("ж" * 110, "../../x", "a\udcff"):
        assert build_index([], name=name).file.parent == own_cache / "indexes"


def test_the_index_is_memory_mapped_and_pickles_as_its_name(tmp_path) -> None:
    entries = [Entry(f"id-{n}", "x.wav", "some text " * 20, "s", 1.0) for n in range(5000)]
    before = pa.total_allocated_bytes()
    index = build_index(entries)
    before = min(before, pa.total_allocated_bytes())
    reopened = Index(index.file)
    assert pa.total_allocated_bytes() - before < 100_000 < index.file.stat().st_size
    assert len(pickle.dumps(index)) < 1000
    assert pickle.loads(pickle.dumps(reopened)).row(4999)["id"] == "id-4999"


def test_a_data_set_pickles(tmp_path, write_tone) -> None:
    write_tone(tmp_path / "audio/a.wav")
    write_tone(tmp_path / "audio/b.wav")
    copy = pickle.loads(pickle.dumps(CustomDirDataset(tmp_path).select([1])))
    assert copy.ids == ["b"] and copy[0].audio.shape == (3200,)


def test_no_entries_at_all() -> None:
    dataset = SpeechDataset([])
    assert (len(dataset), dataset.ids, dataset.texts, dataset.durations.tolist()) == (0, [], [], [])


def test_a_recording_that_vanishes_is_an_audio_error(tmp_path, write_tone) -> None:
    path = write_tone(tmp_path / "audio/a.wav")
    dataset = CustomDirDataset(tmp_path)
    path.unlink()
    with pytest.raises(AudioError, match="no such file"):
        dataset[0]


def test_a_file_name_that_is_not_unicode_is_skipped(tmp_path, write_tone) -> None:
    path = write_tone(tmp_path / "audio/a.wav")
    try:
        os.rename(path, os.fsencode(path.parent) + b"/\xff.wav")
    except OSError:
        pytest.skip("this file system holds Unicode names only")
    write_tone(path)
    dataset = CustomDirDataset(tmp_path)
    assert dataset.ids == ["a"] and len(dataset.skipped) == 1
    assert "not UTF-8" in dataset.skipped[0].reason
    print(dataset.skipped[0])  # can be shown


def test_a_cache_that_cannot_be_written_is_replaced_by_a_temporary_one(
    tmp_path, monkeypatch, write_tone
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LECTERN_CACHE", str(tmp_path / "file"))
    assert cache_dir() != tmp_path / "file" and cache_dir() == cache_dir()
    assert len(build_index([Entry("a", str(write_tone(tmp_path / "a.wav")))])) == 1
