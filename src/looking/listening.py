"""What scripts that look at a model with a recording have in common: their command line, and where pictures go."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from src.datasets import load_audio
from src.recognizer import Recognizer
from src.trainer.run_folder import STEP
from src.utils.files import check_output, written_whole


@dataclass(frozen=True)
class Listening:
    """A recognizer with the name of its checkpoint, audio [N] at 16 kHz with its name, and the pictures' folder."""

    recognizer: Recognizer
    model_name: str
    audio: np.ndarray
    name: str
    out: Path

    def save(self, what: str, figure: Figure) -> Path:
        """Writes ``MODEL_RECORDING_WHAT.png`` and returns where it is."""
        file = self.out / f"{self.model_name}_{self.name}_{what}.png"
        with written_whole(file) as unfinished:
            figure.savefig(unfinished, format="png", dpi=110)
        return file


def listening_of(parser: argparse.ArgumentParser) -> Listening:
    """The command line of such a script: a checkpoint, a recording, the search, the device and the folder.

    Raises ``UserError`` for what cannot be read, and for a folder that cannot be written to.
    """
    parser.add_argument("checkpoint", type=Path, help="a checkpoint directory or a run, of any family")
    parser.add_argument("audio", type=Path, help="a recording, of any format")
    parser.add_argument("--decoder", default="greedy", help="the search that finds the text (default greedy)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda ... (default auto)")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("outputs/inspection"),
        help="folder for MODEL_RECORDING_WHAT.png (default: %(default)s)",
    )
    options = parser.parse_args()
    check_output(options.out / "picture.png")
    audio = load_audio(options.audio)
    recognizer = Recognizer.load(options.checkpoint, options.decoder, options.device)
    return Listening(recognizer, model_name(options.checkpoint), audio, options.audio.stem, options.out)


def model_name(checkpoint: Path) -> str:
    """What a checkpoint is called in pictures and in their files' names.

    >>> model_name(Path("saved/las")), model_name(Path("saved/las/checkpoints/step-8"))
    ('las', 'las_step-8')
    """
    path = checkpoint.resolve()
    is_of_a_run = STEP.fullmatch(path.name) or path.name in ("best", "last")
    return f"{path.parents[1].name}_{path.name}" if is_of_a_run else path.name
