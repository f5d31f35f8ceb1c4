"""Time and memory of a transducer loss, joiner included, forward and backward: Lectern's fused and plain, torchaudio's.

    python -m benchmarks.transducer_loss --batch 8 --frames 200 --tokens 40
    python -m benchmarks.transducer_loss --batch 30 --frames 400 --tokens 60 --rounds 1    # LibriSpeech's shapes
    python -m benchmarks.transducer_loss --device cuda

Each runs in a process of its own, so that a peak of memory is its own; what was there before the first loss (the
packages, the inputs) is not counted. The joiner alone is the least that anything without recomputing can take.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from src.loss.fused_transducer import fused_transducer_loss
from src.loss.transducer import transducer_loss
from src.utils.memory import peak_memory

NAMES = ["lectern, fused", "lectern", "torchaudio", "the joiner alone"]


def loss_function(name: str, targets: Tensor, frames: Tensor, tokens: Tensor) -> Callable[..., Tensor]:
    def logits(encoded: Tensor, predicted: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return torch.nn.functional.linear(
            (encoded.unsqueeze(2) + predicted.unsqueeze(1)).tanh(), weight, bias
        )

    if name == "lectern, fused":
        return lambda *parameters: fused_transducer_loss(*parameters, targets, frames, tokens)
    if name == "lectern":
        return lambda *parameters: transducer_loss(logits(*parameters), targets, frames, tokens)
    if name == "torchaudio":
        from torchaudio.functional import rnnt_loss

        integers = targets.int(), frames.int(), tokens.int()
        return lambda *parameters: rnnt_loss(logits(*parameters), *integers, blank=0)
    return lambda *parameters: logits(*parameters).mean()


def measure(name: str, args: argparse.Namespace) -> dict[str, float | str]:
    """Median seconds and most bytes of a loss and its gradients."""
    torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    B, T, U, V, H = args.batch, args.frames, args.tokens, args.vocabulary, args.hidden
    generator = torch.Generator().manual_seed(0)
    shapes = (B, T, H), (B, U + 1, H), (V, H), (V,)
    parameters = [
        torch.randn(*shape, generator=generator) / (H**0.5 if shape[0] == V else 1) for shape in shapes
    ]
    targets = torch.randint(1, V, (B, U), generator=generator).to(device)
    lengths = torch.full((B,), T, device=device), torch.full((B,), U, device=device)
    loss = loss_function(name, targets, *lengths)

    def run(of: list[Tensor]) -> float:
        own = [x.to(device).requires_grad_() for x in of]
        started = time.perf_counter()
        value = loss(*own)
        value.backward()
        result = float(value)  # waits for a GPU
        seconds.append(time.perf_counter() - started)
        return result

    seconds: list[float] = []
    before = peak_memory(device)
    value = run(parameters)
    grown = peak_memory(device) - before
    for _ in range(args.rounds):
        run([x.detach() for x in parameters])
    return {"loss": name, "seconds": statistics.median(seconds[1:]), "bytes": grown, "value": value}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--frames", type=int, default=200)
    parser.add_argument("--tokens", type=int, default=40)
    parser.add_argument("--vocabulary", type=int, default=500)
    parser.add_argument("--hidden", type=int, default=320)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    rows = []
    for name in NAMES:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            rows.append(pool.apply(measure, (name, args)))
        row = rows[-1]
        print(
            f"{name:18} {row['seconds']:8.3f} s  {row['bytes'] / 1e6:8.0f} MB  loss {row['value']:.4f}",
            flush=True,
        )
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
