"""The whole way from a typed text to a written one, step by step: the toy language of -cn=paraformer_toy says it.

    python train.py -cn=paraformer_toy
    python scripts/toy_inference.py saved/paraformer_toy --text "hello world"

Prints what each part makes of it, with shapes, and draws where the predictor fires into OUT. The sound is written
beside it, for scripts/inspect_model.py and your ears.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src.datasets.tones import ALPHABET, tones_of
from src.logger.media import encode_audio
from src.model import ParaformerModel
from src.recognizer import Recognizer
from src.utils.audio import SAMPLE_RATE
from src.utils.errors import UserError, door
from src.utils.files import check_output, written_whole
from src.utils.plots import Looks, spectrogram_figure
from src.utils.seeding import addressed_rng


@door
@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", type=Path, help="a run or checkpoint of a Paraformer")
    parser.add_argument("--text", default="hello world")
    parser.add_argument("--seed", type=int, default=0, help="of how long each letter sounds")
    parser.add_argument(
        "--out", type=Path, default=Path("outputs/toy.png"), help="the picture (default: %(default)s)"
    )
    arguments = parser.parse_args()
    kind = arguments.out.suffix.lower().lstrip(".")
    if kind not in ("png", "svg", "pdf"):
        raise UserError(f"--out {arguments.out}: the picture is a .png, .svg or .pdf")
    sound = arguments.out.with_suffix(".flac")
    for file in arguments.out, sound:
        check_output(file)
    text = " ".join("".join(letter for letter in arguments.text.lower() if letter in ALPHABET).split())
    if not text:
        raise UserError(f"--text {arguments.text!r} has no letters; the toy language knows a to z")
    recognizer = Recognizer.load(arguments.checkpoint, device="cpu")
    model, tokens = recognizer.model, recognizer.text_encoder.tokens
    if not isinstance(model, ParaformerModel):
        raise UserError(
            f"{arguments.checkpoint}: a {type(model).__name__}; train one with -cn=paraformer_toy"
        )

    audio = torch.from_numpy(tones_of(text, addressed_rng("toy", arguments.seed)))[None]
    print(f"text      {text!r}, {len(recognizer.text_encoder.encode(text))} tokens")
    print(f"audio     {list(audio.shape)}, {audio.size(1) / SAMPLE_RATE:.2f} s")
    features, lengths = model.frontend(audio, torch.tensor([audio.size(1)]))
    print(
        f"features  {list(features.shape)}: {features.size(1)} frames of 10 ms, {features.size(2)} mel bins"
    )
    encoded, encoded_lengths = model.encode(features, lengths)
    print(f"encoded   {list(encoded.shape)}: {int(encoded_lengths)} frames of {1000 * model.frame_s:.0f} ms")
    log_probs, slots = model.write(encoded, encoded_lengths)
    if slots.counted is not None:
        print(f"weights   sum {float(slots.counted):.2f}: so many tokens were heard")
    begun = f"begun in frames {slots.times[0].tolist()}"
    print(f"slots     {list(slots.vectors.shape)}: {int(slots.lengths)} of them, {begun}")
    print(f"log_probs {list(log_probs.shape)}")
    search = recognizer.search(model, encoded, encoded_lengths)[0][0]
    print(f"tokens    {' '.join(tokens[token] for token in search.tokens)}")
    print(f"written   {recognizer.text_encoder.decode(search.tokens)!r}")
    looks = Looks(slots.weights[0].numpy(), [tokens[token] for token in search.tokens])
    figure = spectrogram_figure(
        features[0].numpy(), f"{text}: the frames that make up each slot", looks=looks
    )
    with written_whole(arguments.out) as unfinished:
        figure.savefig(unfinished, format=kind, dpi=110)
    print(f"picture   {arguments.out}")
    with written_whole(sound) as unfinished:
        unfinished.write_bytes(encode_audio(audio[0].numpy()))
    print(f"sound     {sound}")


if __name__ == "__main__":
    main()
