"""scripts/push_to_hub.py, over real sockets to a hub on this machine."""

from __future__ import annotations

import shutil
import sys

import pytest
from support.fakes import COMMIT, FakeHubThatTakes
from support.loopback import serve

from scripts import push_to_hub
from tests.conftest import ROOT

DEMO = ROOT / "checkpoints" / "demo"
TOKEN = "hf_a_token_for_tests"


@pytest.fixture
def push(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    # Large files go by LFS: the protocol of hf_xet, which comes first where it is installed, is its own affair.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "no token"))

    def call(*words: object) -> None:
        monkeypatch.setattr(sys, "argv", ["push_to_hub.py", *map(str, words)])
        push_to_hub.main()

    return call


def test_a_checkpoint_arrives_byte_by_byte(push, capsys):
    hub = FakeHubThatTakes(TOKEN)
    with serve(hub) as (address, _):
        push(DEMO, "someone/demo", "--endpoint", address, "--private", "--message", "the demo")
        made = hub.made["someone/demo"]  # older clients say it in the other way
        assert made.get("visibility") == "private" or made.get("private") is True
        assert hub.files == {file.name: file.read_bytes() for file in DEMO.iterdir()}
        assert hub.message == "the demo"
        assert (
            capsys.readouterr().out.splitlines()[-1]
            == f"pushed {DEMO}: {address}/someone/demo/commit/{COMMIT}"
        )
        push(DEMO, "someone/demo", "--endpoint", address)  # it is there already


def test_an_exported_directory_is_taken_as_it_is(push, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    for name in ("modeling_lectern.py", "config.json", ".hidden"):
        (out / name).write_text(name)
    hub = FakeHubThatTakes(TOKEN)
    with serve(hub) as (address, _):
        push(out, "someone/out", "--endpoint", address)
    assert hub.files == {name: name.encode() for name in ("modeling_lectern.py", "config.json")}


def test_of_a_run_what_resuming_needs_stays_at_home(push, tmp_path):
    step = tmp_path / "run" / "checkpoints" / "step-5"
    shutil.copytree(DEMO, step)
    (step.parent / "best").write_text("step-5\n")
    (step / "training" / "state").mkdir(parents=True)
    (step / "training" / "state" / "tensors.safetensors").write_bytes(b"moments of every weight")
    hub = FakeHubThatTakes(TOKEN)
    with serve(hub) as (address, _):
        push(tmp_path / "run", "someone/demo", "--endpoint", address)
    assert hub.files.keys() == {file.name for file in DEMO.iterdir()}


def test_a_network_in_a_folder_of_this_machine_is_no_use_to_others(push, capsys, tmp_path):
    checkpoint = shutil.copytree(DEMO, tmp_path / "checkpoint")
    config = checkpoint / "config.yaml"
    config.write_text(
        config.read_text().replace("model:\n", f"model:\n  writer: {{source: {tmp_path}}}\n", 1)
    )
    error = failure(push, capsys, checkpoint, "someone/demo")
    assert f"its writer lies in {tmp_path}, which nobody else has; push what scripts/export" in error


def failure(push, capsys, *words: object) -> str:
    with pytest.raises(SystemExit) as stop:
        push(*words)
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert stop.value.code == 2 and len(errors) == 1 and TOKEN not in errors[0]
    return errors[0]


@pytest.mark.parametrize(
    ("refuse", "line"),
    [
        ({"/create": 403}, "use a token that may write there"),
        ({"/create": 401}, "set HF_TOKEN to a token that is valid"),
        ({"/commit/main": 409}, "check the name and the connection, and run again"),
        ({"/commit/main": 400}, "check the name and the connection, and run again"),
    ],
)
def test_what_the_hub_refuses_is_one_line(push, capsys, refuse, line):
    hub = FakeHubThatTakes(TOKEN, {**refuse, "/someone/demo": 404})
    with serve(hub) as (address, _):
        error = failure(push, capsys, DEMO, "someone/demo", "--endpoint", address)
    assert error.startswith("error: someone/demo: not taken by the hub (") and error.endswith(line)
    assert not hub.files


def test_mistakes_are_one_line(push, capsys, monkeypatch, tmp_path):
    assert "checkpoint nowhere does not exist" in failure(push, capsys, "nowhere", "someone/demo")
    nobody = failure(push, capsys, DEMO, "someone/demo", "--endpoint", "http://127.0.0.1:9")
    assert "not taken by the hub (" in nobody and nobody.endswith(
        "check the name and the connection, and run again"
    )
    assert "a hub repository is named owner/name" in failure(push, capsys, DEMO, "demo")
    monkeypatch.delenv("HF_TOKEN")
    assert "set HF_TOKEN to one that may write" in failure(push, capsys, DEMO, "someone/demo")
