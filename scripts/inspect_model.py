"""Pictures of what a model does with one recording, below its spectrogram.

    python scripts/inspect_model.py checkpoints/demo my.wav

CTC: the posteriors, and where each token of the text begins. RNN-T: the lattice of the text with the best path. LAS:
where each head of the attention looks. Paraformer: the predictor's weights and slots, and where each head looks. Speech
LLMs: which tokens the projected frames are like, and where the writer looks for each token that it writes.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src.datasets import load_audio
from src.looking.inspection import inspect_recording
from src.recognizer import Recognizer
from src.trainer.run_folder import STEP
from src.utils.errors import door
from src.utils.files import check_output, written_whole


@door
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", type=Path, help="a checkpoint directory or a run, of any family")
    parser.add_argument("audio", type=Path, help="a recording, of any format")
    parser.add_argument("--decoder", default="greedy", help="the search that finds the text (default greedy)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda ... (default auto)")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("outputs/inspection"),
        help="folder for the pictures, MODEL_RECORDING_WHAT.png (default: %(default)s)",
    )
    arguments = parser.parse_args()
    check_output(arguments.out / "picture.png")
    audio = load_audio(arguments.audio)
    recognizer = Recognizer.load(arguments.checkpoint, arguments.decoder, arguments.device)
    transcript, pictures = inspect_recording(recognizer, audio, arguments.audio.stem)
    for picture in pictures:
        file = arguments.out / f"{_name(arguments.checkpoint)}_{arguments.audio.stem}_{picture.name}.png"
        with written_whole(file) as unfinished:
            picture.figure.savefig(unfinished, format="png", dpi=110)
        print(f"{file}: {picture.about}")
    print(f"text: {transcript.text}")
    print(f"tokens: {len(transcript.hypotheses[0].tokens)}")


def _name(checkpoint: Path) -> str:
    """``las`` for the run saved/las, ``las_step-8`` for saved/las/checkpoints/step-8."""
    path = checkpoint.resolve()
    is_of_a_run = STEP.fullmatch(path.name) or path.name in ("best", "last")
    return f"{path.parents[1].name}_{path.name}" if is_of_a_run else path.name


if __name__ == "__main__":
    main()
