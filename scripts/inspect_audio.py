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

from src.looking.audio_stages import stages_of
from src.looking.listening import listening_of
from src.looking.model_plots import stages_figure
from src.looking.token_names import names_of
from src.utils.audio import SAMPLE_RATE
from src.utils.errors import door
from src.utils.profile_report import columns

HEADS = ["stage", "shape", "samples/row", "ms/row", "mean", "std", "min", "max"]


@door
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    listening = listening_of(parser)
    recognizer, audio = listening.recognizer, listening.audio
    stages, transcript = stages_of(recognizer, audio, listening.name)
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
    known = names_of(recognizer.text_encoder.tokens)
    names = [known[token] for token in tokens]
    print(f"tokens ({len(tokens)}): {' '.join(f'{name}={i}' for name, i in zip(names, tokens, strict=True))}")
    print(f"text: {transcript.text}")
    duration_s = len(audio) / SAMPLE_RATE
    heard = f"{type(recognizer.model).__name__}, {duration_s:.2f} s"
    title = f"{transcript.id}, heard by {listening.model_name}: {heard}\n{transcript.text}"
    figure = stages_figure(stages, duration_s, title)
    print(f"picture: {listening.save('stages', figure)}")


if __name__ == "__main__":
    main()
