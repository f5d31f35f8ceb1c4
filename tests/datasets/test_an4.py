"""The tree of CMU's AN4 archive, written by hand."""

from __future__ import annotations

import numpy as np
import pytest

from src.datasets import An4Dataset
from src.utils.errors import UserError


@pytest.fixture
def an4(tmp_path, write_tone):
    root = tmp_path / "an4"
    (root / "etc").mkdir(parents=True)
    for part, folder, speakers in (("train", "an4_clstk", 12), ("test", "an4test_clstk", 2)):
        ids, lines = [], []
        for s in range(speakers):
            for k in range(2):
                name = f"an{k}-{part[0]}{s:02d}-b"
                ids.append(f"{folder}/{part[0]}{s:02d}/{name}")
                write_tone(root / "wav" / f"{ids[-1]}.sph", 0.1, format="NIST", subtype="PCM_16")
                words = f"GO {'ABCDEFGHIJKL'[s]}"
                lines.append(f"<s> {words} </s> ({name})" if part == "train" else f"{words} ({name})")
        (root / "etc" / f"an4_{part}.fileids").write_text("\n".join(ids) + "\n")
        (root / "etc" / f"an4_{part}.transcription").write_text("\n".join(lines) + "\n")
    return root


def test_partitions_by_speaker(an4) -> None:
    parts = {name: An4Dataset(an4, name) for name in ("train", "dev", "test")}
    assert {name: len(part) for name, part in parts.items()} == {"train": 20, "dev": 4, "test": 4}
    speakers = {name: {part[row].speaker for row in range(len(part))} for name, part in parts.items()}
    assert speakers["dev"] == {"t00", "t10"} and not speakers["dev"] & speakers["train"]
    assert parts["test"].ids[0] == "an4test_clstk/t00/an0-t00-b"
    assert parts["dev"].texts == ["GO A", "GO A", "GO K", "GO K"] and parts["test"].texts[:2] == [
        "GO A",
        "GO A",
    ]
    assert An4Dataset(an4.parent, "dev", limit=1).ids == parts["dev"].ids[:1]


def test_other_copies_of_the_audio(an4, write_tone) -> None:
    stem = an4 / "wav/an4_clstk/t01/an0-t01-b"
    samples = np.array([0, 16384, -16384, -32768] * 400)
    stem.with_suffix(".sph").unlink()
    stem.with_suffix(".raw").write_bytes(samples.astype(">i2").tobytes())
    write_tone(an4 / "wav/an4_clstk/t01/an1-t01-b.flac", 0.3)
    (an4 / "wav/an4_clstk/t01/an1-t01-b.sph").unlink()
    dataset = An4Dataset(an4)
    rows = [row for row in range(len(dataset)) if dataset.entry(row).speaker == "t01"]
    assert np.array_equal(dataset[rows[0]].audio, (samples / 32768).astype(np.float32))
    assert np.allclose(dataset.durations[rows], [0.1, 0.3])


def test_broken_audio_is_skipped(an4) -> None:
    (an4 / "wav/an4_clstk/t01/an0-t01-b.sph").unlink()
    (an4 / "wav/an4_clstk/t01/an1-t01-b.sph").unlink()
    (an4 / "wav/an4_clstk/t01/an1-t01-b.raw").write_bytes(b"")
    dataset = An4Dataset(an4)
    assert len(dataset) == 18
    assert ["no such file" in dataset.skipped[0].reason, "no samples" in dataset.skipped[1].reason] == [
        True,
        True,
    ]


def test_errors(an4, tmp_path) -> None:
    with pytest.raises(UserError, match="partition=valid"):
        An4Dataset(an4, "valid")
    with pytest.raises(UserError, match=r"root=.*nowhere: no etc/an4_train\.fileids"):
        An4Dataset(tmp_path / "nowhere")
    (an4 / "etc/an4_test.transcription").write_text("GO A (an0-t00-b)\nGO A\n")
    with pytest.raises(UserError, match=r"an4_test\.transcription:2"):
        An4Dataset(an4, "test")


@pytest.mark.parametrize(
    "name", ["../../evil", "/etc/evil", "a/../../b", "evil", "a/b\x01-c", "a/" + "x" * 201]
)
def test_a_name_that_cannot_be_an_id_is_refused(an4, name) -> None:
    with (an4 / "etc/an4_test.fileids").open("a") as file:
        file.write(name + "\n")
    with pytest.raises(UserError, match=r"an4_test\.fileids:5: "):
        An4Dataset(an4, "test")
