"""JSON lines and TSV manifests."""

from __future__ import annotations

import json

import pytest

from src.datasets import ManifestDataset
from src.utils.errors import UserError


def write_lines(path, *records) -> str:
    lines = [json.dumps(r, ensure_ascii=False) if isinstance(r, dict) else r for r in records]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def test_json_lines(tmp_path, write_tone) -> None:
    for name in ("clips/a.wav", "clips/b.flac", "c.wav"):
        write_tone(tmp_path / name, 0.2)
    elsewhere = write_tone(tmp_path.parent / f"{tmp_path.name}-other" / "d.wav", 0.3)
    manifest = write_lines(
        tmp_path / "train.jsonl",
        {"audio": "clips/a.wav", "text": 'say "ä"', "speaker": 7},
        {"audio_filepath": "clips/b.flac", "id": "my/b", "duration": 9.5},
        "",
        {"audio_path": str(tmp_path / "c.wav"), "text": ""},
        {"path": str(elsewhere), "text": None},
        {"audio": f"../{elsewhere.parent.name}/d.wav", "duration": 1, "id": "again"},
    )
    dataset = ManifestDataset(manifest)
    assert dataset.ids[:3] + dataset.ids[4:] == ["clips/a", "my/b", "c", "again"]
    assert dataset.ids[3] == str(elsewhere.with_suffix("")).lstrip("/")
    assert dataset.texts == ['say "ä"', None, "", None, None]
    assert dataset.durations.tolist() == pytest.approx([0.2, 9.5, 0.2, 0.3, 1.0])
    assert dataset[0].speaker == "7" and dataset[4].audio.shape == (4800,)
    assert ManifestDataset(manifest, max_duration_s=5, limit=2).ids == ["clips/a", "c"]


@pytest.mark.parametrize("header", ["", "audio\ttranscript\n", "\ufeffpath\ttext\n"])
def test_tsv(tmp_path, write_tone, header) -> None:
    write_tone(tmp_path / "a.wav")
    write_tone(tmp_path / "b c.wav")
    (tmp_path / "m.tsv").write_bytes(f'{header}a.wav\t"quoted\r\nb c.wav\t\r\n'.encode())
    dataset = ManifestDataset(tmp_path / "m.tsv")
    assert dataset.ids == ["a", "b c"] and dataset.texts == ['"quoted', ""]


def test_tsv_with_more_columns(tmp_path, write_tone) -> None:
    write_tone(tmp_path / "a.wav")
    (tmp_path / "m.tsv").write_text("id\tduration\tspeaker\ttranscript\tpath\nx\t2.5\tann\thello\ta.wav\n")
    dataset = ManifestDataset(tmp_path / "m.tsv")
    assert dataset.entry(0).__dict__ == {
        "id": "x", "path": str(tmp_path / "a.wav"), "text": "hello", "speaker": "ann", "duration_s": 2.5
    }  # fmt: skip


def test_a_recording_that_is_missing_is_skipped(tmp_path, write_tone) -> None:
    write_tone(tmp_path / "a.wav")
    missing = ({"audio": "none.wav"}, {"audio": "a\0.wav", "id": "nul"})
    dataset = ManifestDataset(write_lines(tmp_path / "m.jsonl", {"audio": "a.wav"}, *missing))
    assert dataset.ids == ["a"] and [item.id for item in dataset.skipped] == ["none", "nul"]


@pytest.mark.parametrize(
    "line,problem",
    [
        ('{"audio": "b.wav"', "not JSON"),
        ("[1, 2]", "no JSON object"),
        ({"text": "hello"}, "names no recording"),
        ({"audio": ["b.wav"]}, "names no recording"),
        ({"audio": "b.wav", "text": 3}, "text 3 is no string"),
        ({"audio": "b.wav", "duration": "long"}, "duration 'long'"),
        ({"audio": "b.wav", "duration": -1}, "duration -1"),
        ({"audio": "b.wav", "offset": 2.5}, "offset 2.5"),
        ({"audio": "b.wav", "id": "../../b"}, "cannot name a file"),
        ({"audio": "b.wav", "id": "/etc/b"}, "cannot name a file"),
        ({"audio": "b.wav", "id": "a\0b"}, "cannot name a file"),
        ({"audio": "b\n.wav"}, "cannot name a file"),
        ({"audio": "x" * 201 + ".wav"}, "cannot name a file"),
        ({"audio": "../a.wav"}, "id 'a' stands in line 1 already"),
    ],
)
def test_a_bad_line_is_named(tmp_path, line, problem) -> None:
    manifest = write_lines(tmp_path / "m.jsonl", {"audio": "a.wav"}, line)
    with pytest.raises(UserError, match=f"m.jsonl:2: .*{problem}"):
        ManifestDataset(manifest)


def test_bad_files(tmp_path) -> None:
    (tmp_path / "bad.tsv").write_text("a.wav\thello\nb.wav hello\n")
    (tmp_path / "latin.tsv").write_bytes("a.wav\tschön\n".encode("latin-1"))
    (tmp_path / "empty.jsonl").write_text("\n")
    (tmp_path / "list.txt").write_text("a.wav\n")
    for name, problem in {
        "bad.tsv": r"bad\.tsv:2: 1 columns, expected 2",
        "latin.tsv": "not UTF-8",
        "empty.jsonl": "lists no recordings",
        "list.txt": "no kind of manifest",
        "missing.tsv": "no such manifest",
    }.items():
        with pytest.raises(UserError, match=problem):
            ManifestDataset(tmp_path / name)
