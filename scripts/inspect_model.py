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

from src.looking.inspection import inspect_recording
from src.looking.listening import listening_of
from src.utils.errors import door


@door
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    listening = listening_of(parser)
    transcript, pictures = inspect_recording(
        listening.recognizer, listening.audio, listening.name, listening.model_name
    )
    for picture in pictures:
        print(f"{listening.save(picture.name, picture.figure)}: {picture.about}")
    print(f"text: {transcript.text}")
    print(f"tokens: {len(transcript.hypotheses[0].tokens)}")


if __name__ == "__main__":
    main()
