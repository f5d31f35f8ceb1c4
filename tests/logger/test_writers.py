"""Several writers at once; one that breaks costs one line, never the training; choices compose by name."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from matplotlib.figure import Figure

from src.logger import CometWriter, LocalWriter, NullWriter, Sample, WandbWriter, Writer, Writers
from src.utils.errors import UserError

CONFIGS = Path(__file__).resolve().parents[2] / "src/configs"


class Recorder(Writer):
    def __init__(self, fails_at: str = "") -> None:
        self.events: list[str] = []
        for event in ("start", "scalars", "samples", "figure", "audio", "close"):
            setattr(self, event, lambda *_, event=event: self._note(event, fails_at))

    def _note(self, event: str, fails_at: str) -> None:
        self.events.append(event)
        if event == fails_at:
            raise RuntimeError("the tracker\nis down")


def tell_all(writers: Writers) -> None:
    writers.start(Path("run"), {}, resumed_step=None)
    writers.scalars(1, {"train/loss": 1.0})
    writers.samples(1, "dev", [Sample("a", "b", "c", 1.0, 1.0)])
    writers.figure(1, "f", Figure())
    writers.audio(1, "a", np.zeros(10, np.float32))
    writers.close()


ALL = ["start", "scalars", "samples", "figure", "audio", "close"]


@pytest.mark.parametrize("broken", ALL)
def test_a_failing_writer_is_reported_once_and_left_out(broken: str, capsys: pytest.CaptureFixture) -> None:
    good, bad = Recorder(), Recorder(fails_at=broken)
    tell_all(Writers([bad, NullWriter(), good]))
    assert good.events == ALL
    assert bad.events == ALL[: ALL.index(broken) + 1]
    assert (
        capsys.readouterr().err
        == "warning: Recorder failed and is left out: RuntimeError: the tracker is down\n"
    )


def test_ctrl_c_is_no_failure() -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    writer = NullWriter()
    writer.scalars = interrupt
    with pytest.raises(KeyboardInterrupt):
        Writers([writer]).scalars(1, {})


@pytest.mark.parametrize(("choice", "writer"), [("wandb", WandbWriter), ("cometml", CometWriter)])
def test_a_missing_package_or_key_is_said_at_the_start(
    choice: str, writer: type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, {"wandb": "wandb", "cometml": "comet_ml"}[choice], None)
    with pytest.raises(UserError, match="not installed; pip install"):
        Writers([writer()]).start(tmp_path, {}, resumed_step=None)
    with pytest.raises(UserError, match=f"writer.{choice}.mode=sometimes: choose online"):
        writer(mode="sometimes")


@pytest.mark.parametrize(
    ("choice", "kinds"),
    [
        ("local", [LocalWriter]),
        ("[local,wandb]", [LocalWriter, WandbWriter]),
        ("[local,wandb,cometml]", [LocalWriter, WandbWriter, CometWriter]),
        ("none", []),
        ("[none]", []),
    ],
)
def test_choices_compose(choice: str, kinds: list[type]) -> None:
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        config = compose("base", overrides=[f"writer={choice}", "datasets=samples"])
    assert [type(instantiate(node)) for node in (config.writer or {}).values()] == kinds
