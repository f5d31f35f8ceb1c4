"""What becomes of one recording on its way through a model: a table of every stage, and a picture of all.

    python scripts/inspect_audio.py checkpoints/demo my.wav

Waveform, normalised waveform, features, embeddings, for a speech LLM projected embeddings (other families: what their
searches read), tokens and text: shapes, how many samples are behind a row, and what values there are.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src.datasets import load_audio
from src.looking.audio_stages import stages_of
from src.looking.model_plots import stages_figure
from src.recognizer import Recognizer
from src.utils.audio import SAMPLE_RATE
from src.utils.errors import door
from src.utils.files import check_output, written_whole
from src.utils.profile_report import columns

HEADS = ["stage", "shape", "samples/row", "ms/row", "mean", "std", "min", "max"]


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
        help="folder for RECORDING_stages.png (default: %(default)s)",
    )
    arguments = parser.parse_args()
    file = arguments.out / f"{arguments.audio.stem}_stages.png"
    check_output(file)
    audio = load_audio(arguments.audio)
    recognizer = Recognizer.load(arguments.checkpoint, arguments.decoder, arguments.device)
    stages, transcript = stages_of(recognizer, audio, arguments.audio.stem)
    rows = {
        stage.name: [
            "x".join(map(str, stage.values.shape)),
            f"{stage.compression:.1f}",
            f"{stage.ms:.2f}",
            *(f"{value:.4f}" for value in stage.statistics()),
        ]
        for stage in stages
    }
    print(*columns(HEADS, rows, width=13), sep="\n")
    tokens = transcript.hypotheses[0].tokens
    names = [recognizer.text_encoder.tokens[token] for token in tokens]
    print(f"tokens ({len(tokens)}): {' '.join(f'{name}={i}' for name, i in zip(names, tokens, strict=True))}")
    print(f"text: {transcript.text}")
    duration_s = len(audio) / SAMPLE_RATE
    title = f"{transcript.id}: {type(recognizer.model).__name__}, {duration_s:.2f} s\n{transcript.text}"
    with written_whole(file) as unfinished:
        figure = stages_figure({stage.name: stage.values for stage in stages}, duration_s, title)
        figure.savefig(unfinished, format="png", dpi=110)
    print(f"picture: {file}")


if __name__ == "__main__":
    main()
