"""Weights & Biases and Comet, online and offline; a run's id lies in its folder, so a resumed run goes on."""

from __future__ import annotations

import inspect
import io
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from src.logger.base import Sample, Writer
from src.logger.media import encode_audio, encode_png, figure_pixels
from src.utils.audio import SAMPLE_RATE
from src.utils.errors import UserError


def _known_id(file: Path, resumed_step: int | None) -> str | None:
    return file.read_text(encoding="utf-8").strip() if resumed_step is not None and file.exists() else None


class WandbWriter(Writer):
    """Weights & Biases.

    ``mode``: ``online``, ``offline`` (send later with ``wandb sync``) or ``disabled``. Every event carries
    its ``step`` as a metric of its own, because wandb's built-in counter refuses to go back after a resume.
    """

    def __init__(self, project: str = "lectern", name: str | None = None, mode: str = "online") -> None:
        if mode not in ("online", "offline", "disabled"):
            raise UserError(f"writer.wandb.mode={mode}: choose online, offline or disabled")
        self.project, self.name, self.mode = project, name, mode

    def start(self, run_dir: Path, config: dict[str, Any], resumed_step: int | None) -> None:
        try:
            import wandb
        except ImportError:
            raise UserError("wandb: not installed; pip install wandb, or choose writer=local") from None
        self._wandb = wandb
        if self.mode == "online" and not self._has_key():
            raise UserError(
                "wandb: no API key; set WANDB_API_KEY, run `wandb login`, or use writer.wandb.mode=offline"
            )
        id_file = run_dir / "wandb_run_id.txt"
        run_dir.mkdir(parents=True, exist_ok=True)
        self._run = wandb.init(
            project=self.project,
            name=self.name or run_dir.resolve().name,
            dir=str(run_dir),
            config=config,
            mode=self.mode,
            id=_known_id(id_file, resumed_step),
            resume=None if resumed_step is None else "allow",
        )
        id_file.write_text(self._run.id + "\n", encoding="utf-8")
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")

    def scalars(self, step: int, values: dict[str, float]) -> None:
        self._run.log({"step": step, **{name: float(value) for name, value in values.items()}})

    def samples(self, step: int, split: str, rows: Sequence[Sample]) -> None:
        wandb = self._wandb
        table = wandb.Table(columns=["id", "target", "prediction", "CER", "WER", "audio", "spectrogram"])
        for row in rows:
            audio = (
                None if row.audio is None else wandb.Audio(np.clip(row.audio, -1, 1), sample_rate=SAMPLE_RATE)
            )
            picture = row.picture()
            picture = None if picture is None else wandb.Image(figure_pixels(picture))
            table.add_data(row.utterance_id, row.target, row.prediction, row.cer, row.wer, audio, picture)
        self._run.log({"step": step, f"samples/{split}": table})

    def figure(self, step: int, name: str, figure: Figure) -> None:
        self._run.log({"step": step, name: self._wandb.Image(figure_pixels(figure))})

    def audio(self, step: int, name: str, audio: np.ndarray) -> None:
        self._run.log({"step": step, name: self._wandb.Audio(np.clip(audio, -1, 1), sample_rate=SAMPLE_RATE)})

    def close(self) -> None:
        self._run.finish()

    def _has_key(self) -> bool:
        # Never prompts: a notebook or a cluster job would wait for ever. Older releases lack `prompt`.
        if "prompt" in inspect.signature(self._wandb.login).parameters:
            return bool(self._wandb.login(prompt=False, verify=False))
        return bool(self._wandb.api.api_key)


class CometWriter(Writer):
    """Comet.

    ``mode``: ``online`` or ``offline`` (archives in the run's folder below ``comet/``; send with ``comet
    upload``). An offline run that is resumed leaves a second archive that appends to the first.
    """

    def __init__(
        self,
        project: str = "lectern",
        workspace: str | None = None,
        name: str | None = None,
        mode: str = "online",
    ) -> None:
        if mode not in ("online", "offline"):
            raise UserError(f"writer.cometml.mode={mode}: choose online or offline")
        self.project, self.workspace, self.name, self.mode = project, workspace, name, mode

    def start(self, run_dir: Path, config: dict[str, Any], resumed_step: int | None) -> None:
        try:
            import comet_ml
        except ImportError:
            raise UserError("comet_ml: not installed; pip install comet_ml, or choose writer=local") from None
        online = self.mode == "online"
        if online and not comet_ml.config.get_api_key(None, comet_ml.config.get_config()):
            raise UserError("comet: no API key; set COMET_API_KEY, or use writer.cometml.mode=offline")
        key_file = run_dir / "comet_experiment_key.txt"
        (run_dir / "comet").mkdir(parents=True, exist_ok=True)
        self._media = tempfile.TemporaryDirectory(dir=run_dir / "comet", prefix="media-")
        key = _known_id(key_file, resumed_step)
        # The run tells Comet what to keep; nothing is taken from the user's code, console or environment.
        options: dict[str, Any] = {
            "project_name": self.project,
            "workspace": self.workspace,
            "log_code": False,
            "log_graph": False,
            "parse_args": False,
            "auto_param_logging": False,
            "auto_metric_logging": False,
            "auto_output_logging": False,
            "log_git_metadata": False,
            "log_git_patch": False,
            "display_summary_level": 0,
        }
        if not online:
            options["offline_directory"] = str(run_dir / "comet")
        if key is None:
            experiment = comet_ml.Experiment if online else comet_ml.OfflineExperiment
            self._experiment = experiment(**options)
            self._experiment.set_name(self.name or run_dir.resolve().name)
            self._experiment.log_parameters(config)
        else:
            experiment = comet_ml.ExistingExperiment if online else comet_ml.ExistingOfflineExperiment
            self._experiment = experiment(previous_experiment=key, **options)
        key_file.write_text(self._experiment.get_key() + "\n", encoding="utf-8")

    def scalars(self, step: int, values: dict[str, float]) -> None:
        self._experiment.log_metrics({name: float(value) for name, value in values.items()}, step=step)

    def samples(self, step: int, split: str, rows: Sequence[Sample]) -> None:
        table = [[row.utterance_id, row.target, row.prediction, row.cer, row.wer] for row in rows]
        headers = ["id", "target", "prediction", "CER", "WER"]
        self._experiment.log_table(f"samples-{split}-step-{step}.csv", table, headers)
        for row in rows:
            self._experiment.log_text(str(row), step=step, metadata={"split": split, "id": row.utterance_id})
            if row.audio is not None:
                self.audio(step, f"{split}/{row.utterance_id}", row.audio)
            if (picture := row.picture()) is not None:
                self.figure(step, f"{split}/{row.utterance_id}", picture)

    def figure(self, step: int, name: str, figure: Figure) -> None:
        self._experiment.log_image(io.BytesIO(encode_png(figure)), name=name, step=step)

    def audio(self, step: int, name: str, audio: np.ndarray) -> None:
        # As a file, read until `end`: for an array Comet would need scipy, and it takes no bytes.
        file = Path(self._media.name, f"{len(os.listdir(self._media.name))}.wav")
        file.write_bytes(encode_audio(audio, "WAV"))
        self._experiment.log_audio(str(file), file_name=f"{name}-step-{step}.wav", step=step)

    def close(self) -> None:
        self._experiment.end()
        self._media.cleanup()
