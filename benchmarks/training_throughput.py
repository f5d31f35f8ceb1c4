"""How many seconds of audio a second of training takes in: Lectern's Conformer and the encoders of other packages.

    pip install -r benchmarks/requirements.txt
    python -m benchmarks.training_throughput --size s --precisions fp32 bf16 --json throughput.json

Everything around the encoder is the same for all: log-mel features, linear head, CTC, gradient norm and clipping,
fused AdamW, and for the batch random samples. The encoders take turns, round by round, so that a busy machine hurts
all alike; each one's figure is the median of its rounds.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from pathlib import Path

import torch
from omegaconf import OmegaConf

from benchmarks.peers import PEERS, Size
from src.loss import CTCObjective
from src.model import CTCModel
from src.trainer.optimization import Optimization
from src.trainer.step import TrainingStep
from src.utils.audio import SAMPLE_RATE
from src.utils.build import build
from src.utils.processes import Processes

VOCABULARY = 29
TOKENS_PER_S = 12
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
CONFIGS = Path(__file__).parents[1] / "src" / "configs" / "model"


def models(size: str, subsampling_channels: int | None, shares_subsampling: bool) -> dict[str, CTCModel]:
    """Lectern's model of that size, and it again with each peer in the place of its encoder."""
    config = OmegaConf.create({"model": OmegaConf.load(CONFIGS / f"conformer_ctc_{size}.yaml")}).model
    if subsampling_channels:
        config.encoder.subsampling_channels = subsampling_channels
    ours = build(config, vocab_size=VOCABULARY)
    encoder = OmegaConf.to_container(config.encoder, resolve=True)
    sizes = {name: encoder.get(name) for name in Size.__dataclass_fields__}
    common = Size(**sizes | {"shares_subsampling": shares_subsampling})
    found = {"lectern": ours}
    for name, peer in PEERS.items():
        try:
            found[name] = CTCModel(build(config.frontend), peer(common), VOCABULARY)
        except ImportError as error:
            print(f"left out: {name} ({error})")
    if len(found) == 1:
        raise SystemExit("no package to compare with; pip install -r benchmarks/requirements.txt")
    return found


def batch_of(clips: int, seconds: float, device: torch.device) -> dict:
    """Random samples and tokens in the form of ``collate``."""
    torch.manual_seed(0)
    samples, tokens = round(seconds * SAMPLE_RATE), round(seconds * TOKENS_PER_S)
    return {
        "audio": 0.1 * torch.randn(clips, samples, device=device),
        "audio_lengths": torch.full((clips,), samples, device=device),
        "tokens": torch.randint(1, VOCABULARY, (clips, tokens), device=device),
        "token_lengths": torch.full((clips,), tokens, device=device),
        "utterance_id": [str(number) for number in range(clips)],
        "skipped": [],
    }


def measure(model: CTCModel, batch: dict, dtype: torch.dtype, device: torch.device):
    """A function that does one optimizer step and returns its seconds."""
    step = TrainingStep(model.to(device), CTCObjective())
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    optimization = Optimization(
        step, optimizer, None, device, dtype, clip_norm=5.0, max_bad_steps=100, seed=0, processes=Processes()
    )

    def once() -> float:
        started = time.perf_counter()
        optimization.run([batch], 0)
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - started

    return once


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--size", default="s", help="of src/configs/model/conformer_ctc_SIZE.yaml")
    parser.add_argument("--precisions", nargs="+", default=["fp32", "bf16"], choices=DTYPES)
    parser.add_argument("--clips", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=8.0, help="length of a clip")
    parser.add_argument("--subsampling-channels", type=int, help="other than the config's, for all")
    parser.add_argument("--share-subsampling", action="store_true", help="packages without one get Lectern's")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2, help="of the CPU")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    batch = batch_of(args.clips, args.seconds, device)
    built = models(args.size, args.subsampling_channels, args.share_subsampling)
    millions = {name: sum(p.numel() for p in model.parameters()) / 1e6 for name, model in built.items()}
    runs = {
        (name, precision): measure(model, batch, DTYPES[precision], device)
        for precision in args.precisions
        for name, model in built.items()
    }
    times = {key: [] for key in runs}
    for number in range(args.rounds + 1):  # the first one warms up
        for key, once in runs.items():
            seconds = once()
            if number:
                times[key].append(seconds)
    speeds = {key: args.clips * args.seconds / statistics.median(values) for key, values in times.items()}
    print(f"Conformer-{args.size.upper()}, {args.clips} x {args.seconds:g} s, {place(device, args.threads)}")
    print(f"{'encoder':20} {'params':>8} " + " ".join(f"{p:>12}" for p in args.precisions))
    for name, size in millions.items():
        row = " ".join(f"{speeds[name, p]:8.1f} s/s" for p in args.precisions)
        print(f"{name:20} {size:6.2f} M {row}")
    best = {name: max(speeds[name, p] for p in args.precisions) for name in built}
    report = {}
    for title, figures in [(p, {n: speeds[n, p] for n in built}) for p in args.precisions] + [("best", best)]:
        rival = max((n for n in built if n != "lectern"), key=figures.get)
        report[title] = figures["lectern"] / figures[rival]
        print(f"{title}: {report[title]:.2f} x the fastest peer ({rival})")
    if args.json:
        figures = [{"encoder": n, "precision": p, "audio_s_per_s": v} for (n, p), v in speeds.items()]
        about = {"size": args.size, "clips": args.clips, "seconds": args.seconds, "rounds": args.rounds}
        about |= {"subsampling_channels": args.subsampling_channels}
        about |= {"share_subsampling": args.share_subsampling}
        about |= {"machine": place(device, args.threads), "torch": torch.__version__}
        args.json.write_text(json.dumps({**about, "figures": figures, "ratios": report}, indent=1) + "\n")


def place(device: torch.device, threads: int) -> str:
    """What it was measured on."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(": ")[1] for line in lines if line.startswith("model name")]
    return f"{threads} threads of {names[0] if names else platform.processor()}"


if __name__ == "__main__":
    main()
