"""Recognisers of several families on the same recordings: error rates, lengths of texts, and time.

    python -m benchmarks.families MY_DEV saved/MY_LAS:beam saved/MY_PARAFORMER:greedy

Batches of 16 clips of similar length, all recognisers in turns in one process, processor time of one thread; the least
of all rounds counts. Real-time factor: seconds of work per second of audio, features and encoder included; "behind the
encoder" is the search alone, with a decoder's or joiner's work. The number of tokens is that of the best text beside
the transcript's: for a Paraformer it is what its predictor counted.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch

from src.datasets import CustomDirDataset
from src.metrics import corpus_error_rates
from src.recognizer import Recognizer, Transcript
from src.text_encoder import normalize
from src.utils.audio import SAMPLE_RATE
from src.utils.errors import UserError, door

BATCH_SIZE = 16


def batches(audio: list[np.ndarray]) -> list[tuple[list[int], dict]]:
    """Clips by length, ``BATCH_SIZE`` at a time: their positions, and what a recogniser takes."""
    order = sorted(range(len(audio)), key=lambda position: len(audio[position]))
    found = []
    for start in range(0, len(order), BATCH_SIZE):
        positions = order[start : start + BATCH_SIZE]
        clips = [torch.from_numpy(audio[position]) for position in positions]
        padded = torch.nn.utils.rnn.pad_sequence(clips, batch_first=True)
        found.append(
            (positions, {"audio": padded, "audio_lengths": torch.tensor([len(clip) for clip in clips])})
        )
    return found


def run(recognizer: Recognizer, work: list[tuple[list[int], dict]]) -> tuple[list[Transcript], float, float]:
    """Transcripts in the recordings' order; seconds of listening, and of searching."""
    results: dict[int, Transcript] = {}
    listening = searching = 0.0
    for positions, batch in work:
        begin = time.process_time()
        outputs = recognizer.listen(batch)
        heard = time.process_time()
        transcripts = recognizer.decode(outputs, list(map(str, positions)))
        listening, searching = listening + heard - begin, searching + time.process_time() - heard
        results.update(zip(positions, transcripts, strict=True))
    return [results[position] for position in range(len(results))], listening, searching


def lengths_apart(recognizer: Recognizer, texts: list[str], found: list[Transcript]) -> np.ndarray:
    """By how many tokens each best text is longer than what was said."""
    said = [len(recognizer.text_encoder.encode(text)) for text in texts]
    return np.array([len(one.hypotheses[0].tokens) - count for one, count in zip(found, said, strict=True)])


@door
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, help="a folder with audio/ and transcriptions/")
    parser.add_argument("recognizers", nargs="+", help="CHECKPOINT:DECODER, as in inference.py")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clips", type=int, help="only so many (default: all)")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    clips = [clip for clip in CustomDirDataset(arguments.data) if clip.text is not None][: arguments.clips]
    if not clips:
        raise UserError(f"{arguments.data}: no recording in it has a transcript")
    texts, work = [normalize(clip.text) for clip in clips], batches([clip.audio for clip in clips])
    seconds = sum(len(clip.audio) for clip in clips) / SAMPLE_RATE
    recognizers = {}
    for name in arguments.recognizers:
        checkpoint, colon, decoder = name.rpartition(":")
        if not colon:
            raise UserError(f"{name}: say CHECKPOINT:DECODER")
        recognizers[name] = Recognizer.load(checkpoint, decoder, device="cpu")
    rounds = [{name: run(one, work) for name, one in recognizers.items()} for _ in range(arguments.rounds)]
    figures = {}
    for name, recognizer in recognizers.items():
        found = rounds[0][name][0]
        rates = corpus_error_rates(texts, [one.text for one in found])
        apart = lengths_apart(recognizer, texts, found)
        listening, searching = (min(each[name][part] for each in rounds) / seconds for part in (1, 2))
        figures[name] = {
            "parameters": sum(parameter.numel() for parameter in recognizer.model.parameters()),
            "wer": rates["wer"],
            "cer": rates["cer"],
            "right_length": float((apart == 0).mean()),
            "tokens_apart": float(np.abs(apart).mean()),
            "real_time_factor": listening + searching,
            "behind_the_encoder": searching,
        }
    print(f"{len(clips)} clips, {seconds:.0f} s")
    for name, figure in figures.items():
        print(
            f"{name}: {figure['parameters'] / 1e6:.1f} M parameters  WER {figure['wer']:.2%}  CER {figure['cer']:.2%}"
            f"  right number of tokens {figure['right_length']:.0%}, off by {figure['tokens_apart']:.2f} in the mean"
            f"  real-time factor {figure['real_time_factor']:.4f},"
            f" behind the encoder {figure['behind_the_encoder']:.5f}"
        )
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
