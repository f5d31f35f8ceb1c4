"""Finds how much a language model should count in a beam search: every weight with every length bonus, on a dev set.

    python scripts/tune_fusion.py checkpoints/demo my_dev --words data/lm/words.safetensors --out saved/beam_words.yaml
    python inference.py checkpoint=checkpoints/demo data_dir=my_test save_dir=texts decoder=saved/beam_words.yaml

Then an LSTM (train.py -cn=lm) may sort that search's n-best lists anew:

    python scripts/tune_fusion.py checkpoints/demo my_dev --rescore saved/lm --search saved/beam_words.yaml \\
        --out saved/rescored.yaml

The model hears the dev set once; what it heard is kept beside --out, so that the next tuning begins with the search.
--out is the best search as a decoder YAML; beside it are the table (.json) and the picture (.png) of all WERs.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import torch
import yaml
from matplotlib.figure import Figure
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src.checkpoint import Checkpoint
from src.datasets import BucketBatchSampler, CustomDirDataset, PreparedDataset, SpeechDataset, build_loader
from src.decoding import Hypothesis, LengthBonus, NBestRescoring, Scorer
from src.lm import NeuralScorer, TokenNGramScorer, WordNGramScorer
from src.metrics import corpus_error_rates
from src.model import CTCModel, SpeechModel
from src.recognizer import Recognizer
from src.text_encoder import normalize
from src.utils.devices import choose_device
from src.utils.errors import UserError, door
from src.utils.files import check_output, save_tensors, written_whole
from src.utils.progress import progress_bar

BATCH = 32  # utterances searched in at once
BATCH_S = 240  # seconds of audio that the model hears at once


def acoustic_scores(recognizer: Recognizer, dataset: SpeechDataset, cache: Path) -> dict[str, Tensor]:
    """What the search reads of each utterance, [T, V] (CTC) or [T, H] (a transducer's joint_encoded), by its id; from
    the cache where that is of the same model and recordings."""
    with suppress(FileNotFoundError, SafetensorError):
        found = load_file(cache)
        print(f"acoustic scores from {cache}")
        return found
    sampler = BucketBatchSampler(dataset.durations, max_batch_duration_s=BATCH_S, shuffle=False)
    found: dict[str, Tensor] = {}
    with progress_bar(total=len(dataset), desc="listening", unit="clip") as bar:
        for batch in build_loader(PreparedDataset(dataset), sampler):
            bar.update(len(batch.get("utterance_id", ())) + len(batch["skipped"]))
            for item in batch["skipped"]:
                print(f"skipped {item.id}: {item.reason}")
            if "audio" in batch:
                *_, frames, lengths = recognizer.model.search_inputs(recognizer.listen(batch))
                rows = zip(batch["utterance_id"], frames.cpu(), lengths.tolist(), strict=True)
                found |= {i: row[:length].clone() for i, row, length in rows}
    with written_whole(cache) as unfinished:
        save_tensors(found, unfinished)
    return found


def searched(
    search: Any, scores: list[Tensor], model: SpeechModel, desc: str | None = None
) -> list[list[Hypothesis]]:
    """The n-best list of each utterance; scores sorted by length."""
    found, device = [], model.device
    asked = () if isinstance(model, CTCModel) else (model,)  # by the search, step by step
    for start in progress_bar(range(0, len(scores), BATCH), desc=desc, unit="batch", disable=desc is None):
        rows = scores[start : start + BATCH]
        lengths = torch.tensor([len(row) for row in rows], device=device)
        found += search(*asked, torch.nn.utils.rnn.pad_sequence(rows, batch_first=True).to(device), lengths)
    return found


def resorted(found: list[list[Hypothesis]], weight: float, bonus: float) -> list[list[Hypothesis]]:
    """N-best lists that were rescored with weights of 1 and 0, as they are with these."""
    return [
        sorted(
            hypotheses,
            key=lambda h: h.score + (weight - 1) * h.parts["rescoring"] + bonus * len(h.tokens),
            reverse=True,
        )
        for hypotheses in found
    ]


def what_to_tune(
    arguments: argparse.Namespace, checkpoint: Checkpoint, tokens: list[str]
) -> tuple[Scorer, dict, Callable[..., Any], dict]:
    """The language model and its settings; a maker of searches, which takes their scorers, and its settings."""
    for name, of in {
        "search": ["rescore"],
        "beam_size": ["words", "tokens"],
        "unknown_penalty": ["words"],
    }.items():
        if getattr(arguments, name) is not None and not any(getattr(arguments, kind) for kind in of):
            option, needed = f"--{name.replace('_', '-')}", " or ".join(f"--{kind}" for kind in of)
            raise UserError(
                f"{option} {getattr(arguments, name)}: means nothing without {needed}; leave it out"
            )
    penalty = -5.0 if arguments.unknown_penalty is None else arguments.unknown_penalty
    nbest = arguments.search or "beam"
    if arguments.words:
        about = {"_target_": "src.lm.WordNGramScorer", "lm": str(arguments.words), "unknown_penalty": penalty}
        scorer = WordNGramScorer(arguments.words, tokens, penalty)
    elif arguments.tokens:
        about = {"_target_": "src.lm.TokenNGramScorer", "lm": str(arguments.tokens)}
        scorer = TokenNGramScorer(arguments.tokens, tokens)
    else:
        about = {"_target_": "src.lm.NeuralScorer", "lm": str(arguments.rescore)}
        scorer = NeuralScorer(arguments.rescore, tokens)
        settings = {"_target_": "src.decoding.NBestRescoring", "search": checkpoint.search_settings(nbest)}
        return scorer, about, partial(NBestRescoring, checkpoint.search(nbest)), settings
    own = {} if arguments.beam_size is None else {"beam_size": arguments.beam_size}

    def build(scorers: list[tuple[Scorer, float]]) -> Any:
        return checkpoint.search("beam", {**own, "scorers": scorers})

    return scorer, about, build, {**checkpoint.search_settings("beam"), **own}


def surface(rows: list[dict], best: dict) -> Figure:
    """The WER of every weight (down) and bonus (across)."""
    weights, bonuses = (sorted({row[name] for row in rows}) for name in ("weight", "bonus"))
    table = {(row["weight"], row["bonus"]): 100 * row["wer"] for row in rows}
    values = [[table[weight, bonus] for bonus in bonuses] for weight in weights]
    figure = Figure(figsize=(2 + 0.9 * len(bonuses), 1.5 + 0.5 * len(weights)), layout="constrained")
    axes = figure.add_subplot()
    lowest = min(map(min, values))
    image = axes.imshow(values, aspect="auto", cmap="viridis_r", vmin=lowest, vmax=lowest * 1.5 + 1)
    axes.set_xticks(range(len(bonuses)), [f"{bonus:g}" for bonus in bonuses])
    axes.set_yticks(range(len(weights)), [f"{weight:g}" for weight in weights])
    axes.set(xlabel="bonus for each token", ylabel="weight of the language model", title="dev WER (%)")
    for (row, weight), (column, bonus) in product(enumerate(weights), enumerate(bonuses)):
        bold = "bold" if (weight, bonus) == (best["weight"], best["bonus"]) else None
        # The norm says how dark a cell is: 1 is the darkest.
        color = "white" if image.norm(values[row][column]) > 0.5 else "black"
        text = f"{values[row][column]:.2f}"
        axes.text(column, row, text, ha="center", va="center", weight=bold, color=color)
    figure.colorbar(image, ax=axes)
    return figure


def outputs(out: Path) -> tuple[Path, Path, Path]:
    """The decoder YAML, the table and the picture."""
    return out, out.with_suffix(".json"), out.with_suffix(".png")


def parsed() -> argparse.Namespace:
    """What the command line says, and where to write, found writable."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", type=Path, help="a recogniser's checkpoint")
    parser.add_argument("data_dir", type=Path, help="the dev set: a folder with audio/ and transcriptions/")
    kind = parser.add_mutually_exclusive_group(required=True)
    kind.add_argument("--words", type=Path, metavar="LM", help="a language model of words")
    kind.add_argument("--tokens", type=Path, metavar="LM", help="a language model of the checkpoint's tokens")
    kind.add_argument("--rescore", type=Path, metavar="RUN", help="a language model of train.py -cn=lm")
    parser.add_argument(
        "--search", help="whose n-best lists to --rescore: a name or a YAML file (default: beam)"
    )
    parser.add_argument(
        "--weights",
        type=float,
        nargs="+",
        default=[0, 0.2, 0.4, 0.6, 0.8, 1.0],
        help="of the language model, to be tried (default: 0 to 1 in steps of 0.2)",
    )
    parser.add_argument(
        "--bonuses",
        type=float,
        nargs="+",
        default=[0, 0.5, 1.0, 1.5],
        help="for each token of a text, to be tried (default: 0 to 1.5 in steps of 0.5)",
    )
    parser.add_argument(
        "--unknown-penalty", type=float, help="of words that --words does not have (default: -5)"
    )
    parser.add_argument(
        "--beam-size",
        type=int,
        help="of the search with --words or --tokens (default: that of the checkpoint's beam)",
    )
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, required=True, help="the decoder YAML to write")
    arguments = parser.parse_args()
    if arguments.out.suffix not in (".yaml", ".yml"):
        raise UserError(f"--out {arguments.out}: must end in .yaml")
    for file in outputs(arguments.out):
        check_output(file)
    return arguments


def hear(
    recognizer: Recognizer, dataset: CustomDirDataset, fingerprint: str, out: Path
) -> tuple[list[str], list[Tensor]]:
    """The texts of the dev set, normalised, and the acoustic scores of their recordings, by length."""
    for item in dataset.skipped:
        print(f"skipped {item.id}: {item.reason}")
    paths = [Path(dataset.entry(row).path) for row in range(len(dataset))]
    recordings = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
    name = hashlib.sha256(repr((fingerprint, recordings)).encode()).hexdigest()[:12]
    heard = acoustic_scores(recognizer, dataset, out.with_name(f"acoustic_scores_{name}.safetensors"))
    references = {i: normalize(t) for i, t in zip(dataset.ids, dataset.texts, strict=True) if t is not None}
    ids = sorted(heard.keys() & references.keys(), key=lambda i: len(heard[i]))
    return [references[i] for i in ids], [heard[i] for i in ids]


def search_the_grid(
    grid: list[tuple[float, float, Any]],
    once: Any | None,
    recognizer: Recognizer,
    truth: list[str],
    scores: list[Tensor],
) -> list[dict]:
    """WER and CER of each point of the grid, (weight, bonus, search); ``once``: the search whose n-best lists are all
    that these sort anew, with weights of 1 and 0."""
    nbest = None if once is None else searched(once, scores, recognizer.model, desc="searching")
    rows = []
    for weight, bonus, search in progress_bar(grid, desc="tuning", unit="point"):
        found = (
            searched(search, scores, recognizer.model) if nbest is None else resorted(nbest, weight, bonus)
        )
        texts = [recognizer.text_encoder.decode(hypotheses[0].tokens) for hypotheses in found]
        rates = corpus_error_rates(truth, texts)
        rows.append({"weight": weight, "bonus": bonus, "wer": rates["wer"], "cer": rates["cer"]})
    return rows


def write(out: Path, rows: list[dict], about: dict, settings: dict, clips: str) -> dict:
    """The best search as a decoder YAML, the table and the picture -> the best row."""
    best = min(rows, key=lambda row: (row["wer"], row["cer"]))
    scorers = [[about, best["weight"]], [{"_target_": "src.decoding.LengthBonus"}, best["bonus"]]]
    summary = f"WER {100 * best['wer']:.2f} %  CER {100 * best['cer']:.2f} % on {clips}"
    content = yaml.safe_dump({**settings, "scorers": scorers}, sort_keys=False)
    out.write_text(f"# {summary}\n{content}", encoding="utf-8")
    _, table, picture = outputs(out)
    table.write_text(json.dumps({"best": best, "rows": rows}, indent=1) + "\n", encoding="utf-8")
    surface(rows, best).savefig(picture, dpi=120)
    without = min((row["wer"] for row in rows if row["weight"] == 0), default=None)
    if without is not None:
        less = (
            "rescoring" if settings.get("_target_", "").endswith("NBestRescoring") else "the language model"
        )
        print(f"without {less}: WER {100 * without:.2f} %")
    print(f"weight {best['weight']:g}  bonus {best['bonus']:g}  {summary}")
    return best


@door
def main() -> None:
    arguments = parsed()
    checkpoint = Checkpoint.open(arguments.checkpoint)
    model = checkpoint.model().to(choose_device(arguments.device))
    recognizer = Recognizer(model, checkpoint.text_encoder(), search=None)
    tokens = recognizer.text_encoder.tokens
    scorer, about, build, settings = what_to_tune(arguments, checkpoint, tokens)
    bonus_scorer = LengthBonus(len(tokens))
    grid = [
        (weight, bonus, build(scorers=[(scorer, weight), (bonus_scorer, bonus)]))
        for weight, bonus in sorted(product(set(arguments.weights), set(arguments.bonuses)))
    ]
    dataset = CustomDirDataset(arguments.data_dir)
    nothing = f"{arguments.data_dir}: has no recordings with transcripts; tuning needs both"
    if all(text is None for text in dataset.texts):
        raise UserError(nothing)
    truth, scores = hear(recognizer, dataset, checkpoint.fingerprint(), arguments.out)
    if not truth:  # what there was could not be read
        raise UserError(nothing)
    once = build(scorers=[(scorer, 1.0)]) if arguments.rescore else None
    rows = search_the_grid(grid, once, recognizer, truth, scores)
    best = write(arguments.out, rows, about, settings, f"{len(truth)} clips of {dataset.name}")
    for name, tried in (("weight", arguments.weights), ("bonus", arguments.bonuses)):
        if len(set(tried)) > 1 and best[name] == max(tried):
            option = {"weight": "--weights", "bonus": "--bonuses"}[name]
            print(f"note: the best {name} is the largest one tried; a larger one may be better ({option})")
    print(f"wrote {', '.join(map(str, outputs(arguments.out)))}")


if __name__ == "__main__":
    main()
