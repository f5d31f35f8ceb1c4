"""The default record of a run: it can be read back, survives a kill, and shows no text as HTML."""

from __future__ import annotations

import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import soundfile
from matplotlib.figure import Figure
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from src.logger import LocalWriter, Sample
from src.logger.page import marked_prediction

TONE = np.sin(np.arange(1600) * 0.3).astype(np.float32)
FEATURES = np.arange(40.0, dtype=np.float32).reshape(10, 4)


def sample(
    name: str = "s1/a", target: str = "one two", prediction: str = "one too", **media: np.ndarray
) -> Sample:
    return Sample(name, target, prediction, wer=0.5, cer=1 / 7, **media)


def started(run_dir: Path, resumed_step: int | None = None, keep: int = 20) -> LocalWriter:
    writer = LocalWriter(keep=keep)
    writer.start(run_dir, {}, resumed_step)
    return writer


def records(run_dir: Path) -> list[dict]:
    return [json.loads(line) for line in (run_dir / "scalars.jsonl").read_text().splitlines()]


def test_scalars_are_on_disk_at_once_and_not_finite_ones_are_null(tmp_path: Path) -> None:
    writer = started(tmp_path)
    writer.scalars(1, {"train/loss": np.float32(2.5), "train/grad_norm": float("inf")})
    (record,) = records(tmp_path)
    assert record.pop("time") > 1.7e9
    assert record == {"step": 1, "train/loss": 2.5, "train/grad_norm": None}
    assert "NaN" not in (tmp_path / "scalars.jsonl").read_text()
    writer.close()


def test_resume_goes_on_and_drops_what_the_killed_run_wrote_after_its_checkpoint(tmp_path: Path) -> None:
    killed = started(tmp_path)
    for step in (10, 20, 30):
        killed.scalars(step, {"train/loss": float(step)})
        killed.samples(step, "dev", [sample(target=f"step {step}")])
    killed._board.flush()
    with (tmp_path / "scalars.jsonl").open("a") as file:
        file.write('{"step": 40, "train/l')  # the kill came here
    resumed = started(tmp_path, resumed_step=10)
    resumed.scalars(
        10, {"dev/loss": 7.0}
    )  # an evaluation that the kill came before: what was there of it stays
    for step in (20, 30):
        resumed.scalars(step, {"train/loss": step + 0.5})
        resumed.samples(step, "dev", [sample(target=f"again {step}")])
    resumed.close()
    trained = [(r["step"], r["train/loss"]) for r in records(tmp_path) if "train/loss" in r]
    assert trained == [(10, 10), (20, 20.5), (30, 30.5)]
    assert [r["step"] for r in records(tmp_path) if "dev/loss" in r] == [10]
    page = (tmp_path / "samples/index.html").read_text()
    assert re.findall(r"<td>((?:step|again) \d+)</td>", page) == ["again 30", "again 20", "step 10"]
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(e.step, e.value) for e in events.Scalars("train/loss")] == [(10, 10), (20, 20.5), (30, 30.5)]


def test_a_new_run_in_the_same_folder_begins_anew(tmp_path: Path) -> None:
    for value in (1.0, 2.0):
        writer = started(tmp_path)
        writer.scalars(1, {"train/loss": value})
        writer.audio(1, f"clip{value}", TONE)
        writer.close()
    assert [r["train/loss"] for r in records(tmp_path)] == [2.0]
    assert "clip1.0" not in (tmp_path / "samples/index.html").read_text()


class Page(HTMLParser):
    """Collects the tags, the text and the files that a page refers to; void and closing tags must match."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags, self.links, self.open, self.text = [], [], [], ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.tags.append(tag)
        self.links += [
            value for name, value in attrs if name in ("src", "href") and not value.startswith("#")
        ]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_shows_all_and_refers_to_files_beside_it(tmp_path: Path) -> None:
    writer = started(tmp_path)
    hostile = '<script>alert("x")</script> & </td>'
    for step in (5, 10):
        writer.scalars(step, {"train/loss": 1.0, "dev/wer_greedy": 0.5})
        writer.samples(step, "dev", [sample(hostile, hostile, hostile, audio=TONE, spectrogram=FEATURES)])
    writer.audio(10, "train/augmented", TONE / 2)
    figure = Figure(figsize=(2, 1))
    figure.add_subplot().plot([1, 2])
    writer.figure(10, "train/augmented", figure)
    writer.close()
    page = Page((tmp_path / "samples/index.html").read_text())
    assert "script" not in page.tags and page.text.count('alert("x")') >= 6
    assert page.text.index("step 10") < page.text.index("step 5")
    assert all(
        word in page.text
        for word in ("50.0%", "14.3%", "train/augmented", "target", "prediction", "CER", "WER")
    )
    assert "svg" in page.tags and page.tags.count("audio") == 3 and page.tags.count("img") == 3
    for link in page.links:
        assert re.fullmatch(r"media/[0-9a-f]{20}\.(flac|png)", link), link
        assert (tmp_path / "samples" / link).stat().st_size > 0
    # The same clip at two steps is one file.
    quiet, loud = sorted(
        (tmp_path / "samples/media").glob("*.flac"), key=lambda f: soundfile.read(f)[0].max()
    )
    np.testing.assert_allclose(soundfile.read(loud)[0], TONE, atol=1e-4)
    np.testing.assert_allclose(soundfile.read(quiet)[0], TONE / 2, atol=1e-4)
    assert soundfile.info(loud).samplerate == 16_000


def test_old_entries_and_their_files_go(tmp_path: Path) -> None:
    writer = started(tmp_path, keep=2)
    for step in range(1, 6):
        writer.samples(step, "dev", [sample(audio=TONE / step)])
        writer.samples(step, "train", [sample()])
    writer.close()
    page = (tmp_path / "samples/index.html").read_text()
    assert re.findall(r"<h2>step (\d)</h2>", page) == ["5", "4"]
    assert len(list((tmp_path / "samples/media").iterdir())) == 2


def test_tensorboard_has_sound_pictures_and_texts(tmp_path: Path) -> None:
    writer = started(tmp_path)
    writer.samples(3, "dev", [sample()])
    writer.audio(3, "clip", 2 * TONE)
    figure = Figure(figsize=(2, 1), dpi=50)
    writer.figure(3, "picture", figure)
    writer.close()
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    (sound,) = events.Audio("clip")
    heard, rate = soundfile.read(io.BytesIO(sound.encoded_audio_string))
    assert rate == 16_000 and len(heard) == len(TONE) and sound.step == 3
    (picture,) = events.Images("picture")
    assert (picture.width, picture.height) == (100, 50)
    text = events.Tensors("samples/dev/text_summary")[0].tensor_proto.string_val[0].decode()
    assert text == "target: one two, prediction: one too, CER: 0.1429, WER: 0.5000"


@pytest.mark.parametrize(
    ("target", "prediction", "marked"),
    [
        ("a b c", "a b c", "a b c"),
        ("a b c", "a c", "a <del>b</del> c"),
        ("a", "", "<del>a</del>"),
        ("", "a", "<ins>a</ins>"),
        ("", "", ""),
        ("a <b>", "a &", "a <mark>&amp;</mark>"),
    ],
)
def test_marked_prediction(target: str, prediction: str, marked: str) -> None:
    assert marked_prediction(target, prediction) == marked
