"""Corpora in shards: written, read here and from the web, in the order of an epoch, with whatever is wrong in them."""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import pickle
import sys
import tarfile
import time
import tracemalloc
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from support.loopback import Reply, Request, file_server, serve

from benchmarks.index_of_ten_million import make_index
from scripts import make_shards
from src.datasets import (
    BucketBatchSampler,
    CustomDirDataset,
    MixtureDataset,
    PreparedDataset,
    ShardsDataset,
    Skipped,
    build_loader,
)
from src.datasets.index import Index, write_index
from src.datasets.samplers import shard_order
from src.datasets.shard_index import INDEX_NAME
from src.fetching import download_cache, downloads
from src.fetching.download_cache import DownloadCache
from src.text_encoder import CharTextEncoder
from src.trainer import build_trainer
from src.utils.errors import AudioError, UserError
from src.utils.hydra_door import compose

CLIPS = 12


@pytest.fixture
def folder(tmp_path, write_tone):
    (tmp_path / "mine/transcriptions/s1").mkdir(parents=True)
    for n in range(CLIPS):
        write_tone(tmp_path / f"mine/audio/s1/{n:02d}.wav", 0.1 + 0.005 * n, 200 + 50 * n)
        (tmp_path / f"mine/transcriptions/s1/{n:02d}.txt").write_text(f"Clip numéro {n}", encoding="utf-8")
    return tmp_path / "mine"


@pytest.fixture
def shards(folder, tmp_path):
    """Three shards of four clips each, and their index."""
    made = tmp_path / "shards"
    dataset = CustomDirDataset(folder)
    make_shards.make_shards(dataset, made, "wav", 20_000)
    assert len(list(made.glob("*.tar"))) == 3
    return made


def command(monkeypatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["make_shards.py", *arguments])
    make_shards.main()


def tar(files: dict[str, bytes], mode: str = "w", **options) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode, **options) as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


@contextmanager
def web(folder: Path):
    """Serves a folder; yields its address and the names of the files that were downloaded, in order."""
    files = {f"/{file.name}": file.read_bytes() for file in folder.iterdir() if file.is_file()}
    got: list[str] = []

    def answer(request: Request) -> Reply:
        if request.method == "GET":
            got.append(request.path.strip("/"))
        return file_server(files)(request)

    with serve(answer) as (address, _):
        yield address, got, files


def rewrite(folder: Path, **columns) -> None:
    """Puts other columns, or other notes (bytes), into the index of shards."""
    table = Index(folder / INDEX_NAME).table
    notes = dict(table.schema.metadata)
    for name, values in columns.items():
        if isinstance(values, bytes):
            notes[name.encode()] = values
        else:
            place = table.schema.get_field_index(name)
            field = table.schema.field(place)
            table = table.set_column(place, field, pa.array(values, field.type))
    table = table.replace_schema_metadata(notes)
    write_index(folder / INDEX_NAME, table.schema, table.to_batches())


@pytest.mark.parametrize("kind", ["flac", "wav"])
def test_a_corpus_comes_back_from_its_shards(kind, folder, tmp_path, monkeypatch, capsys) -> None:
    long = "ü" * 90 + "/" + "n" * 120  # needs more than one header in a tar
    (folder / f"audio/{long}.wav").parent.mkdir()
    (folder / "audio/s1/00.wav").rename(folder / f"audio/{long}.wav")
    (folder / "audio/broken.wav").write_bytes(b"not audio")
    out = tmp_path / "train"
    command(monkeypatch, f"data_dir={folder}", "--out", str(out), "--shard-mb", "0.01", "--format", kind)
    said = capsys.readouterr().out
    assert "skipped broken: " in said and f"made {out}: {CLIPS} clips" in said
    assert f"datasets=shards datasets.train.shards={out}" in said and "1 recordings skipped" in said

    original, found = CustomDirDataset(folder), ShardsDataset(str(out))
    assert found.ids == original.ids and long in found.ids and found.texts == original.texts
    assert found.durations.tolist() == original.durations.tolist() and found.name == "train"
    for row in range(CLIPS):
        ours, theirs = found[row], original[row]
        assert (ours.id, ours.text, ours.speaker) == (theirs.id, theirs.text, theirs.speaker)
        assert np.array_equal(ours.audio, theirs.audio)  # 16 bit already
    names = sorted(file.name for file in out.iterdir())
    assert names == ["index.arrow", *(f"train-{n:06d}.tar" for n in range(len(names) - 1))] and len(names) > 3
    (out / INDEX_NAME).unlink()  # any reader of WebDataset finds what belongs together
    without = ShardsDataset(str(out))
    assert without.texts == original.texts and np.array_equal(without[5].audio, original[5].audio)


def test_what_is_not_16_bit_is_rounded(tmp_path, write_tone) -> None:
    write_tone(tmp_path / "mine/audio/a.wav", rate=44_100, subtype="FLOAT")
    original = CustomDirDataset(tmp_path / "mine")
    make_shards.make_shards(original, tmp_path / "out", "flac", 1 << 20)
    difference = ShardsDataset(str(tmp_path / "out"))[0].audio - original[0].audio
    assert 0 < np.abs(difference).max() <= 0.5 / 32768 + 1e-9


def test_a_stopped_command_goes_on_and_makes_the_same(folder, shards, tmp_path, monkeypatch) -> None:
    out = tmp_path / "again" / "shards"
    dataset = CustomDirDataset(folder)
    read, seen = CustomDirDataset.__getitem__, []

    def stop(self, row):
        seen.append(row)
        if row == 6:
            raise KeyboardInterrupt
        return read(self, row)

    monkeypatch.setattr(make_shards, "TOGETHER", 2)
    monkeypatch.setattr(CustomDirDataset, "__getitem__", stop)
    with pytest.raises(KeyboardInterrupt):
        make_shards.make_shards(dataset, out, "wav", 20_000)
    assert not (out / INDEX_NAME).exists() and (out / "shards-000000.tar").exists()
    with pytest.raises(UserError, match="a part of other shards"):
        make_shards.make_shards(dataset, out, "flac", 20_000)
    monkeypatch.setattr(
        CustomDirDataset, "__getitem__", lambda self, row: (seen.append(row), read(self, row))[1]
    )
    seen.clear()
    make_shards.make_shards(dataset, out, "wav", 20_000)
    assert sorted(seen) == list(range(4, CLIPS))
    for file in shards.iterdir():
        assert (out / file.name).read_bytes() == file.read_bytes()
    with pytest.raises(UserError, match="there are shards already"):
        make_shards.make_shards(dataset, out, "wav", 20_000)


def test_limits_lists_and_patterns(shards) -> None:
    everything = ShardsDataset(str(shards))
    assert everything.shards.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    some = ShardsDataset(str(shards), min_duration_s=0.1225, limit=4)
    assert some.ids == everything.ids[5:9] and some.out_of_range == 5 and some.shards.tolist() == [0, 0, 0, 1]
    chosen = some.select([3, 1])
    assert chosen.shards.tolist() == [1, 0] and chosen[0].id == everything.ids[8]
    for pattern in (
        f"{shards}/shards-{{000001..000002}}.tar",
        [f"{shards}/shards-000001.tar", f"{shards}/shards-{{000002..000002}}.tar"],
    ):
        last = ShardsDataset(pattern)
        assert last.ids == everything.ids[4:] and last.shards.tolist() == [0] * 4 + [1] * 4
        assert last.out_of_range == 0 and last.name == "shards-000001" and last[7].id == last.ids[7]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ("x-{5..3}.tar", "matches nothing"),
        ("x-{0..1}.tar", "x-0.tar cannot be opened"),
        ("nowhere", "no such folder"),
        ("x.tar.gz", "is compressed"),
        ([], "must be a folder"),
        (["a.flac"], "is no .tar"),
        (["a/x.tar", "b/x.tar"], "two are called x.tar"),
        ("http://127.0.0.1:1/x", "index.arrow: cannot be reached"),
        ("http://127.0.0.1:1/x.tar", "cannot be reached"),
    ],
)
def test_what_is_no_place_of_shards_is_one_line(wrong, words, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=words):
        ShardsDataset(wrong)


def test_tars_of_other_people(tmp_path, write_tone) -> None:
    wav = write_tone(tmp_path / "a.wav", 0.3).read_bytes()
    ogg = write_tone(tmp_path / "a.ogg", 0.4, format="OGG").read_bytes()
    members = {
        "./0001.wav": wav,
        "./0001.txt": "\ufeffhello wörld\n".encode(),
        "dir/b.c.ogg": ogg,
        "dir/b.c.json": json.dumps({"sentence": "from json", "speaker_id": 7}).encode(),
        "dir/no_text.wav": wav,
        "bad_text.wav": wav,
        "bad_text.txt": b"\xff\xff",
        "bad_json.wav": wav,
        "bad_json.json": b'{"text": "\\ud800"}',
        "alone.txt": b"no recording",
        "broken.flac": b"fLaC and no more",
        "twice.wav": wav,
        "twice.ogg": ogg,
        "../up.wav": wav,
        "new\nline.wav": wav,
        "x" * 150 + ".wav": wav,
    }
    for number, form in enumerate((tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)):
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / f"in/part{number}.tar").write_bytes(tar(members, format=form))
    dataset = ShardsDataset(str(tmp_path / "in"))
    keys = ["0001", "dir/b.c", "dir/no_text", "bad_text", "bad_json", "x" * 150]
    assert dataset.ids == [f"part{n}/{key}" for n in range(2) for key in keys]
    assert dataset.texts[:6] == ["hello wörld", "from json", None, None, None, None]
    assert dataset.durations[:2].tolist() == pytest.approx([0.3, 0.4]) and dataset[1].speaker == "7"
    assert [len(dataset[row].audio) for row in range(12)] == [4800, 6400, 4800, 4800, 4800, 4800] * 2
    reasons = [item.reason for item in dataset.skipped]
    assert len(reasons) == 8 and not any("\n" in item.id + item.reason for item in dataset.skipped)
    for words in ("cannot be read as audio", "2 recordings of its key", "../up' cannot name a file"):
        assert sum(words in reason for reason in reasons) >= 2
    # The second time nothing is read through.
    again = ShardsDataset([f"{tmp_path}/in/part0.tar", f"{tmp_path}/in/part1.tar"])
    assert again.index.file == dataset.index.file and again.ids == dataset.ids


def test_a_changed_shard_is_read_again_and_the_others_are_not(tmp_path, write_tone, monkeypatch) -> None:
    wav = write_tone(tmp_path / "a.wav").read_bytes()
    for n in range(2):
        (tmp_path / f"{n}.tar").write_bytes(tar({"a.wav": wav}))
    assert ShardsDataset(str(tmp_path)).ids == ["0/a", "1/a"]
    (tmp_path / "1.tar").write_bytes(tar({"a.wav": wav, "b.wav": wav}))
    (tmp_path / "0.tar").open("rb").close()
    opened = []
    real = ShardsDataset._open
    monkeypatch.setattr(ShardsDataset, "_open", lambda self, n: (opened.append(n), real(self, n))[1])
    assert ShardsDataset(str(tmp_path)).ids == ["0/a", "1/a", "1/b"] and opened == [1]


@pytest.mark.parametrize("keep", [0.5, 0.9])
def test_a_shard_that_is_cut_off(keep, tmp_path, write_tone, shards) -> None:
    file = shards / "shards-000001.tar"
    content = file.read_bytes()
    file.write_bytes(content[: int(keep * len(content))])
    prepared = PreparedDataset(ShardsDataset(str(shards)), CharTextEncoder())
    items = [prepared[row] for row in range(CLIPS)]
    lost = [row for row, item in enumerate(items) if isinstance(item, Skipped)]
    assert lost and set(lost) < {4, 5, 6, 7} and "copy the shard again" in items[lost[0]].reason
    (shards / INDEX_NAME).unlink()
    found = ShardsDataset(str(shards))  # as if it came from other people
    assert len(found) == CLIPS - len(lost) and "is cut off or damaged" in found.skipped[0].reason


def test_noise_in_the_place_of_a_shard(tmp_path) -> None:
    (tmp_path / "a.tar").write_bytes(np.random.default_rng(0).bytes(20_000))
    (tmp_path / "b.tar").write_bytes(b"")
    dataset = ShardsDataset(str(tmp_path))
    assert len(dataset) == 0 and [item.id for item in dataset.skipped] == ["a", "b"]


def test_compressed_tars(tmp_path, write_tone) -> None:
    wav = write_tone(tmp_path / "a.wav").read_bytes()
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.tar.gz").write_bytes(tar({"a.wav": wav}, "w:gz"))
    with pytest.raises(UserError, match="its .tar are compressed; put plain .tar files there"):
        ShardsDataset(str(tmp_path / "in"))
    (tmp_path / "in/a.tar.gz").rename(tmp_path / "in/a.tar")  # whatever it is called
    with pytest.raises(UserError, match="a.tar: is compressed"):
        ShardsDataset(str(tmp_path / "in"))


def test_an_index_that_lies_costs_its_clips(shards) -> None:
    table = Index(shards / INDEX_NAME).table
    ids, paths, offsets, sizes = (table[name].to_pylist() for name in ("id", "path", "offset", "size"))
    ids[0], paths[1] = "../../up", "s1/other.wav"
    offsets[2:6] = [-1, 0, 1 << 62, offsets[5] + 512]
    sizes[6:9] = [-5, 1 << 62, sizes[8] + 1]
    rewrite(shards, id=ids, path=paths, offset=offsets, size=sizes)
    dataset = ShardsDataset(str(shards))
    items = [PreparedDataset(dataset)[row] for row in range(CLIPS)]
    assert [isinstance(item, Skipped) for item in items] == [True] * 9 + [False] * 3
    assert "cannot name a file" in items[0].reason and items[0].id == "row 0"
    assert "something else there" in items[1].reason and "are not in its shard" in items[4].reason
    for row in range(9):
        with pytest.raises(AudioError):
            dataset[row]


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"shard": [3] * CLIPS}, "other shards"),
        ({"shard": [-1] * CLIPS}, "other shards"),
        ({"shard": [None] * CLIPS}, "column shard has gaps"),
        ({"duration_s": [float("nan")] * CLIPS}, "durations that cannot be"),
        ({"duration_s": [0.0] * CLIPS}, "durations that cannot be"),
        ({"shards": b'["../a.tar", "b.tar", "c.tar"]'}, "cannot be a shard"),
        ({"shards": b'[["a.tar"], "b.tar", "c.tar"]'}, "cannot be a shard"),
        ({"shards": b"{"}, "no index of shards"),
        ({"skipped": b"[1]"}, "no index of shards"),
    ],
)
def test_an_index_that_cannot_be_is_one_line(columns, words, shards) -> None:
    rewrite(shards, **columns)
    with pytest.raises(UserError, match=words):
        ShardsDataset(str(shards))


def test_an_index_of_something_else(shards) -> None:
    file = shards / INDEX_NAME
    content = file.read_bytes()
    other = pa.table({"id": ["a"]})
    write_index(file, other.schema, other.to_batches())
    with pytest.raises(UserError, match=r"its columns are id\); remove it"):
        ShardsDataset(str(shards))
    for damaged in (b"", b"no Arrow", content[: len(content) // 2]):
        file.write_bytes(damaged)
        with pytest.raises(UserError, match="no index of shards"):
            ShardsDataset(str(shards))


def test_flipped_bytes_of_an_index_never_crash(shards) -> None:
    file = shards / INDEX_NAME
    content, rng = file.read_bytes(), np.random.default_rng(0)
    for _ in range(300):
        damaged = bytearray(content)
        for place in rng.integers(len(content), size=3):
            damaged[place] = rng.integers(256)
        file.unlink()  # the last one is still mapped
        file.write_bytes(damaged)
        try:
            dataset = ShardsDataset(str(shards))
            assert dataset.ids is not None and dataset.texts is not None
        except UserError:
            continue
        for row in range(len(dataset)):
            PreparedDataset(dataset)[row]


def test_a_training_run_passes_through_the_shards(shards, tmp_path) -> None:
    settings = [
        "datasets=shards",
        f"datasets.train.shards={shards}",
        "datasets.dev=null",
        "datasets.test=null",
    ]
    settings += ["model=mlp_ctc", "writer=none", f"save_dir={tmp_path}", "trainer.device=cpu"]
    trainer = build_trainer(compose("one_batch", settings))
    assert trainer.train_loader.batch_sampler.shards.tolist() == [0] * 4 + [1] * 4 + [2] * 4


def batches(dataset, num_workers: int, epoch: int = 1, position: int = 0) -> list[dict]:
    prepared = PreparedDataset(dataset, CharTextEncoder(), seed=5, spec_draws=2)
    sampler = BucketBatchSampler(dataset.durations, 2, shuffle=True, seed=5, shards=dataset.shards)
    loader = build_loader(prepared, sampler, num_workers)
    sampler.set_epoch(epoch, position)
    return list(loader)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_resumed_epoch_has_the_batches_that_remained(num_workers, shards, own_cache) -> None:
    whole = batches(ShardsDataset(str(shards)), 0)
    assert len(whole) == 6 and not any(batch["skipped"] for batch in whole)
    with web(shards) as (address, got, _):
        for place in (str(shards), address):
            resumed = batches(ShardsDataset(place), num_workers, position=2)
            for ours, theirs in zip(resumed, whole[2:], strict=True):
                assert ours["utterance_id"] == theirs["utterance_id"]
                assert torch.equal(ours["audio"], theirs["audio"])
                assert torch.equal(ours["spec_draws"], theirs["spec_draws"])
        ShardsDataset(address)
    assert len(got) == len(set(got)) and set(got) == {file.name for file in shards.iterdir()}


def test_the_next_shard_of_the_epoch_is_asked_for_once(shards) -> None:
    with web(shards) as (address, _, _):
        dataset = ShardsDataset(address)
    asked: list[str] = []
    dataset.cache.fetch_ahead = lambda link, version: asked.append(link)
    for epoch in range(3):
        order = shard_order(5, epoch, 3).tolist()
        for shard in order:
            for row in np.flatnonzero(dataset.shards == shard):
                dataset.prefetch(int(row), epoch, 5)
        assert asked == [f"{address}/shards-{shard:06d}.tar" for shard in order[1:]]
        asked.clear()


def test_fetching_ahead_is_the_same_download(shards, tmp_path) -> None:
    with web(shards) as (address, got, files):
        cache = DownloadCache(tmp_path / "cache", 1 << 30)
        cache.fetch_ahead(f"{address}/shards-000001.tar")
        assert cache.open(f"{address}/shards-000001.tar").read() == files["/shards-000001.tar"]
    assert got == ["shards-000001.tar"]


def test_shards_on_the_web_without_an_index(shards) -> None:
    expected = ShardsDataset(str(shards)).texts
    (shards / INDEX_NAME).unlink()
    with web(shards) as (address, got, _):
        with pytest.raises(UserError, match="answers 404 .* name the tars"):
            ShardsDataset(address)
        for _ in range(2):
            dataset = ShardsDataset(f"{address}/shards-{{000000..000002}}.tar")
            assert dataset.texts == expected and dataset.ids[0] == "shards-000000/s1/00"
    assert got == [f"shards-00000{n}.tar" for n in range(3)] and dataset[5].text == expected[5]


def test_shards_that_are_made_anew_on_the_web_replace_the_old_ones(shards, folder, tmp_path) -> None:
    make_shards.make_shards(CustomDirDataset(folder, limit=5), tmp_path / "new/shards", "flac", 1 << 20)
    with web(shards) as (address, got, files):
        old = ShardsDataset(address)
        assert len(old) == len(ShardsDataset(address)) == CLIPS and len(old[0].audio) == 1600
        files |= {f"/{file.name}": file.read_bytes() for file in (tmp_path / "new/shards").iterdir()}
        new = ShardsDataset(address)
        assert len(new) == 5 and np.array_equal(new[4].audio, ShardsDataset(str(shards))[4].audio)
    assert got == [INDEX_NAME, "shards-000000.tar"] * 2


def test_a_cache_that_cannot_hold_what_training_mixes_is_refused(shards) -> None:
    with web(shards) as (address, _, _):
        with pytest.raises(UserError, match="cache_gb=1e-05: training needs 3 shards at a time"):
            ShardsDataset(address, cache_gb=1e-5)


def test_a_shard_that_is_gone_costs_its_clips_and_is_asked_for_once(shards, monkeypatch) -> None:
    with web(shards) as (address, got, files):
        dataset = ShardsDataset(address)
        lost = files.pop("/shards-000001.tar")
        found = batches(dataset, 0)
        skipped = [item for batch in found for item in batch["skipped"]]
        assert sorted(item.id for item in skipped) == dataset.ids[4:8]
        assert all("the server answers 404" in item.reason for item in skipped)
        assert sum(len(batch.get("utterance_id", [])) for batch in found) == 8
        assert got.count("shards-000001.tar") == 1
        files["/shards-000001.tar"] = lost  # a later epoch finds it again
        monkeypatch.setattr(download_cache, "RETRY_S", 0)
        assert not any(batch["skipped"] for batch in batches(dataset, 0, epoch=2))


def test_a_broken_download_goes_on_where_it_stopped(shards, monkeypatch) -> None:
    monkeypatch.setattr(downloads.time, "sleep", lambda seconds: None)
    cuts = iter([1000, None])
    content = (shards / "shards-000000.tar").read_bytes()

    def answer(request: Request) -> Reply:
        reply = file_server({"/a.tar": content})(request)
        reply.cut = next(cuts)
        return reply

    with serve(answer) as (address, seen):
        cache = DownloadCache(shards.parent / "cache", 1 << 30)
        assert cache.open(f"{address}/a.tar").read() == content
    assert [request.headers.get("Range") for request in seen] == [None, "bytes=1000-"]


def test_processes_of_a_run_share_what_failed_and_a_later_run_tries_again(shards, tmp_path) -> None:
    with web(shards) as (address, got, _):
        cache = DownloadCache(tmp_path / "cache", 1 << 30)
        worker = pickle.loads(pickle.dumps(cache))
        for asked, who in ((1, cache), (1, worker), (1, cache), (2, None)):
            who = who or DownloadCache(tmp_path / "cache", 1 << 30)
            with pytest.raises(UserError, match="no.tar: the server answers 404"):
                who.open(f"{address}/no.tar")
            assert got == ["no.tar"] * asked


def test_a_download_that_nobody_goes_on_with_is_removed(shards, tmp_path) -> None:
    for name, age in ((".old.download", 2 * download_cache.ABANDONED_S), (".new.download", 0)):
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    with web(shards) as (address, _, _):
        DownloadCache(tmp_path, 1 << 30).open(f"{address}/shards-000000.tar").close()
    assert [path.name for path in tmp_path.glob(".*.download")] == [".new.download"]


def test_the_cache_keeps_within_its_bound_and_forgets_what_was_not_used(shards, tmp_path) -> None:
    size = (shards / "shards-000000.tar").stat().st_size
    with web(shards) as (address, got, files):
        cache = DownloadCache(tmp_path / "cache", int(2.5 * size))
        places = [f"{address}/shards-00000{n}.tar" for n in range(3)]
        for n in (0, 1, 0, 2, 0, 1):
            with cache.open(places[n]) as file:
                assert file.read() == files[f"/shards-00000{n}.tar"]
            kept = [file for file in (tmp_path / "cache").iterdir() if not file.name.startswith(".")]
            assert len(kept) <= 2
        assert [int(name[-5]) for name in got] == [0, 1, 2, 1]
        tiny = DownloadCache(tmp_path / "tiny", 1)
        first, second = tiny.open(places[0]), tiny.open(places[1])
        assert first.read() == files["/shards-000000.tar"]  # deleted, but not for who is reading it
        assert second.read() == files["/shards-000001.tar"]
        assert sum(not file.name.startswith(".") for file in (tmp_path / "tiny").iterdir()) == 1


def test_processes_that_ask_at_once_download_once(shards, tmp_path) -> None:
    with web(shards) as (address, got, files):
        context = multiprocessing.get_context("fork")
        together = context.Barrier(3)
        results = context.SimpleQueue()

        def ask() -> None:
            cache = DownloadCache(tmp_path / "cache", 1 << 30)
            together.wait(60)
            results.put(cache.open(f"{address}/shards-000000.tar").read())

        processes = [context.Process(target=ask) for _ in range(3)]
        for process in processes:
            process.start()
        contents = [results.get() for _ in processes]
        for process in processes:
            process.join(60)
    assert contents == [files["/shards-000000.tar"]] * 3 and got == ["shards-000000.tar"]


def test_a_large_index_opens_without_an_object_for_each_row(tmp_path) -> None:
    rows = 300_000
    make_index(tmp_path, rows)
    tracemalloc.start()
    dataset = ShardsDataset(str(tmp_path), max_duration_s=15, limit=200_000)
    entry = dataset.entry(199_999)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(dataset) == 200_000 and entry.text.endswith(entry.id) and entry.duration_s <= 15
    assert peak < 60 * rows  # a few arrays of numbers; an object alone takes more


def test_damaged_indexes_in_the_cache_are_made_anew(folder, shards, own_cache) -> None:
    (shards / INDEX_NAME).unlink()
    ids = ShardsDataset(str(shards)).ids
    cached = list((own_cache / "indexes").glob("shard*.arrow"))
    assert len(cached) > 1
    for file in cached:
        file.write_bytes(b"half")
    assert ShardsDataset(str(shards)).ids == ids


def test_a_row_has_another_version_when_its_shard_does(shards) -> None:
    dataset = ShardsDataset(str(shards))
    before = [dataset.version(row) for row in range(len(dataset))]
    changed = sorted(shards.glob("*.tar"))[0]
    os.utime(changed, ns=(1, 1))
    after = [dataset.version(row) for row in range(len(dataset))]
    assert [one != other for one, other in zip(before, after, strict=True)] == [True] * 4 + [False] * 8
    assert MixtureDataset({"a": dataset}).version(0) == after[0]


def test_texts_make_no_shards(folder, tmp_path, monkeypatch) -> None:
    lines = [f"datasets.{part}.texts={folder}" for part in ("train", "dev")]
    with pytest.raises(SystemExit):
        command(monkeypatch, "datasets=texts", "split=dev", *lines, "--out", str(tmp_path / "none"))
    assert not (tmp_path / "none").exists()
