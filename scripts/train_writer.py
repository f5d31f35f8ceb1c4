"""Trains a small causal language model of ``transformers`` that stands in for a large one in a speech LLM.

    python scripts/train_writer.py data/an4/train --out data/writers/an4
    python train.py -cn=speech_llm model=speech_llm_conformer model.writer.source=data/writers/an4 ...

It reads the letters of a text, repeated, with silence and mistakes among them, in the place where the speech will be,
and answers with the text. Half of the texts are invented of the words of all, so that there is no reciting. Text may be
files (.txt, .jsonl, .tsv, each also .gz) and folders, as for train_lm.py; give only what is trained on. --steps 0
writes the same network untrained, for a control. It runs on the CPU: the defaults, 845 short texts, took a quarter of
an hour of one core.
"""

from __future__ import annotations

import argparse
import random
import sys
from itertools import islice
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from src.lm.small_writer import SILENCE, Exercises, answer_loss, save_tokenizer, small_network
from src.text_encoder import ChatTextEncoder
from src.text_encoder.corpus import read_corpus
from src.trainer.schedules import warmup_cosine
from src.utils.build import Positive, Share, Whole, check, check_counts
from src.utils.errors import UserError, door
from src.utils.files import atomic_directory, check_output
from src.utils.progress import progress_bar


def train(
    network: torch.nn.Module, exercises: Exercises, steps: int, batch_size: int, lr: float
) -> tuple[float, float]:
    """AdamW in bfloat16; returns loss and share of right tokens, means over the last fifty steps or so."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=lr, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = warmup_cosine(optimizer, steps, warmup=0.05)
    loss = right = 0.0
    with progress_bar(total=steps, desc="writer", unit="step") as bar:
        for step, (ids, targets) in enumerate(islice(exercises.batches(batch_size), steps), start=1):
            with torch.autocast("cpu", torch.bfloat16):
                loss_now, right_now = answer_loss(network, ids, targets)
            optimizer.zero_grad()
            loss_now.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            share = max(0.02, 1 / step)
            loss += share * (loss_now.item() - loss)
            right += share * (right_now.item() - right)
            bar.set_postfix(loss=f"{loss:.3f}", right=f"{right:.1%}", refresh=False)
            bar.update()
    return loss, right


@door
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("text", nargs="+", type=Path, help="files or folders with sentences")
    parser.add_argument("--out", required=True, type=Path, help="the folder to write")
    parser.add_argument("--dim", type=int, default=128, help="width, a multiple of 32 (default 128)")
    parser.add_argument("--layers", type=int, default=4, help="(default 4)")
    parser.add_argument("--steps", type=int, default=4500, help="(default 4500; 0: untrained)")
    parser.add_argument("--batch-size", type=int, default=16, help="texts in a step (default 16)")
    parser.add_argument("--lr", type=float, default=2e-3, help="peak learning rate (default 2e-3)")
    parser.add_argument("--errors", type=float, default=0.05, help="share of misheard letters (default 0.05)")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.dim < 32 or arguments.dim % 32:
        raise UserError(f"--dim {arguments.dim}: give a multiple of 32, the width of a head")
    check_counts(**{"--layers": arguments.layers, "--batch-size": arguments.batch_size})
    check("--steps", arguments.steps, Whole)
    check("--lr", arguments.lr, Positive)
    check("--errors", arguments.errors, Share)
    check_output(arguments.out / "config.json")
    if arguments.out.exists() and any(arguments.out.iterdir()):
        raise UserError(f"--out {arguments.out}: holds files already; choose another, or remove them")

    texts = read_corpus(arguments.text)
    if not texts:
        raise UserError(f"{arguments.text[0]}: no text here; give files or folders with sentences")
    torch.manual_seed(arguments.seed)
    said = "untrained"
    with atomic_directory(arguments.out) as folder:
        save_tokenizer(folder)
        encoder = ChatTextEncoder(str(folder))
        network = small_network(encoder.vocab_size, arguments.dim, arguments.layers)
        silence, rng = encoder.tokens.index(SILENCE), random.Random(arguments.seed)
        exercises = Exercises(texts, encoder, silence, rng, errors=arguments.errors)
        if arguments.steps:
            loss, right = train(network, exercises, arguments.steps, arguments.batch_size, arguments.lr)
            said = f"loss {loss:.3f}, {right:.1%} of its letters right"
        network.save_pretrained(folder)
    weights = sum(weight.numel() for weight in network.parameters())
    print(f"wrote {arguments.out} (Qwen3 of {weights:,} weights, {len(texts):,} texts; {said})")
    print(f"use it: python train.py -cn=speech_llm model.writer.source={arguments.out} ...")


if __name__ == "__main__":
    main()
