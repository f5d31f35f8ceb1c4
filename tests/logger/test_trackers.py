"""Weights & Biases and Comet in their real offline modes; what would be uploaded is read back.

They run in a process of their own with a home of its own, because both leave hooks and settings behind; all
proxies point to a closed port, so that nothing can leave this machine.
"""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
RUN = """
import sys
import time
from pathlib import Path
import numpy as np
from matplotlib.figure import Figure
from src.logger import CometWriter, Sample, WandbWriter, Writers
from src.utils.errors import UserError

kind, run_dir = {"wandb": WandbWriter, "comet": CometWriter}[sys.argv[1]], Path(sys.argv[2])
tone = np.sin(np.arange(1600) * 0.3).astype(np.float32)
figure = Figure(figsize=(2, 1))
figure.add_subplot().plot([1, 2])
for resume, resumed_step in ((False, None), (True, 5)):
    writers = Writers([kind(project="tests", mode="offline")])
    writers.start(run_dir, {"model": {"layers": 4}}, resumed_step)
    writers.scalars(5 + resume, {"train/loss": 1.5 - resume})
    rows = [Sample("s/a", "the target", "the prediction", 0.5, 0.25, tone, np.ones((20, 8), np.float32))]
    writers.samples(5 + resume, "dev", rows)
    writers.figure(5 + resume, "train/picture", figure)
    writers.audio(5 + resume, "train/sound", 2 * tone)
    writers.close()
    assert len(writers.writers) == 1, "left out"
    second = int(time.time())
    while int(time.time()) == second:  # wandb names folders by it: a second start in the same one would be lost
        pass
try:
    kind(mode="online").start(run_dir, {}, None)
except UserError as error:
    print(error)
"""


def run_offline(kind: str, tmp_path: Path) -> str:
    """Two starts of one run, the second resumed; returns what an online start without a key says."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("WANDB", "COMET"))
    }
    environment |= dict.fromkeys(
        ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), "http://127.0.0.1:9"
    )
    environment |= {"HOME": str(tmp_path), "PYTHONPATH": str(ROOT), "WANDB_ERROR_REPORTING": "false"}
    command = [sys.executable, "-c", RUN, kind, str(tmp_path / "run")]
    done = subprocess.run(
        command, env=environment, cwd=tmp_path, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, done.stderr
    assert "left out" not in done.stderr and "COMET ERROR" not in done.stderr, done.stderr
    return done.stdout.splitlines()[-1]


def wandb_records(file: Path) -> list:
    """The records of a .wandb file: LevelDB's log format after a header of 7 bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, place, whole, records = file.read_bytes(), 7, b"", []
    while place + 7 <= len(data):
        if 32768 - place % 32768 < 7:  # a header never straddles two blocks
            place += 32768 - place % 32768
            continue
        length, kind = struct.unpack_from("<HB", data, place + 4)
        whole += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # full, last
            records.append(Record.FromString(whole))
            whole = b""
    return records


def test_wandb_offline(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    said = run_offline("wandb", tmp_path)
    assert said == "wandb: no API key; set WANDB_API_KEY, run `wandb login`, or use writer.wandb.mode=offline"
    run_id = (tmp_path / "run/wandb_run_id.txt").read_text().strip()
    files = sorted((tmp_path / "run/wandb").glob(f"offline-run-*-{run_id}/*.wandb"))
    history = []
    for file in files:
        records = wandb_records(file)
        (run,) = [record.run for record in records if record.WhichOneof("record_type") == "run"]
        assert (run.run_id, run.project, run.display_name) == (run_id, "tests", "run")
        assert {item.key: item.value_json for item in run.config.update}["model"] == '{"layers":4}'
        for record in records:
            items = {"/".join(i.nested_key) or i.key: json.loads(i.value_json) for i in record.history.item}
            history += [items] if items else []
    scalars = [(row["step"], row["train/loss"]) for row in history if "train/loss" in row]
    assert scalars == [(5, 1.5), (6, 0.5)]
    types = {key.removesuffix("/_type"): row[key] for row in history for key in row if key.endswith("/_type")}
    assert types == {"samples/dev": "table-file", "train/picture": "image-file", "train/sound": "audio-file"}
    (table, _) = sorted((tmp_path / "run/wandb").rglob("*.table.json"))
    table = json.loads(table.read_text())
    assert table["columns"] == ["id", "target", "prediction", "CER", "WER", "audio", "spectrogram"]
    assert table["data"][0][:5] == ["s/a", "the target", "the prediction", 0.25, 0.5]
    assert table["data"][0][5:] == ["Audio", "Image"]  # the media themselves wait in the table's artifact
    staged = [file.read_bytes()[:4] for file in (tmp_path / ".local/share/wandb/artifacts/staging").iterdir()]
    assert staged.count(b"RIFF") == 2 and staged.count(b"\x89PNG") == 2


def test_comet_offline(tmp_path: Path) -> None:
    pytest.importorskip("comet_ml")
    said = run_offline("comet", tmp_path)
    assert said == "comet: no API key; set COMET_API_KEY, or use writer.cometml.mode=offline"
    key = (tmp_path / "run/comet_experiment_key.txt").read_text().strip()
    archives = sorted((tmp_path / "run/comet").glob(f"{key}*.zip"), key=lambda path: len(path.name))
    assert len(archives) == 2
    messages = []
    for archive in archives:
        with zipfile.ZipFile(archive) as file:
            assert json.loads(file.read("experiment.json"))["offline_id"] == key
            messages.append([json.loads(line) for line in file.read("messages.json").splitlines()])
    for number, (step, loss) in enumerate([(5, 1.5), (6, 0.5)]):
        payloads = [message["payload"] for message in messages[number]]
        metrics = [p["metric"] for p in payloads if p.get("metric", {}).get("metricName") == "train/loss"]
        assert [(m["step"], m["metricValue"]) for m in metrics] == [(step, loss)]
        kinds = [p["upload_type"] for p in payloads if "upload_type" in p]
        assert sorted(kinds) == ["asset", "audio", "audio", "text-sample", "visualization", "visualization"]
