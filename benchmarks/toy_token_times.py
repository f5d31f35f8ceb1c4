"""How far a token's time is from the begin of its sound, in the toy language, where that is known.

    python train.py -cn=paraformer_toy
    python -m benchmarks.toy_token_times saved/paraformer_toy

Of the clips whose text is written without a mistake. What it found: docs/families/paraformer.md.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from src.datasets.tones import EDGE_S, TonesDataset, letters_of
from src.recognizer import Recognizer
from src.utils.audio import SAMPLE_RATE
from src.utils.errors import door
from src.utils.seeding import addressed_rng

SEED = 1  # of the dev set of datasets=tones


def begins(text: str, utterance_id: str) -> np.ndarray:
    """Seconds at which the letters of a clip begin."""
    samples = [count for _, count in letters_of(text, addressed_rng("sound", SEED, utterance_id))]
    return EDGE_S + np.cumsum([0, *samples[:-1]]) / SAMPLE_RATE


def place_of(text: str, place: int) -> str:
    """What a letter stands beside: the silence at the clip's edge, a space, or another letter."""
    if not place:
        return "first letter"
    return "space" if text[place] == " " else "after a space" if text[place - 1] == " " else "after a letter"


@door
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoints", type=Path, nargs="+", help="runs of -cn=paraformer_toy")
    parser.add_argument("--decoder", default="greedy", help="the search (default greedy)")
    parser.add_argument("--clips", type=int, default=100)
    arguments = parser.parse_args()
    clips = [*TonesDataset(arguments.clips, seed=SEED)]
    for checkpoint in arguments.checkpoints:
        recognizer = Recognizer.load(checkpoint, arguments.decoder, device="cpu")
        frame_s = recognizer.model.frame_s
        errors, right = {}, 0
        for clip, found in zip(clips, recognizer.transcribe([clip.audio for clip in clips]), strict=True):
            best = found.hypotheses[0]
            if found.text != clip.text or len(best.tokens) != len(clip.text):
                continue
            right += 1
            off = np.array(best.token_times) * frame_s - begins(clip.text, clip.id)
            for place, error in enumerate(off.tolist()):
                for name in ("all", place_of(clip.text, place)):
                    errors.setdefault(name, []).append(1000 * error)
        print(f"{checkpoint}: {right} of {len(clips)} clips; frames of {1000 * frame_s:.0f} ms")
        for name, values in errors.items():
            median, (half, nine_tenths) = np.median(values), np.quantile(np.abs(values), (0.5, 0.9))
            spread = f"half within {half:.0f}, 9 of 10 within {nine_tenths:.0f}, all within {max(map(abs, values)):.0f}"
            print(f"  {name:14} {len(values):5} tokens  median {median:+5.0f} ms  {spread} ms")


if __name__ == "__main__":
    main()
