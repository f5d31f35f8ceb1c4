"""Utterances that a CTC beam search decodes in a second: Lectern's, and those of other packages, in turns.

    pip install -r benchmarks/requirements-search.txt && pip install --no-deps pyctcdecode==0.5.0
    python -m benchmarks.ctc_search --json search.json
    python -m benchmarks.ctc_search --lm words.arpa --posteriors real --data MY_DEV   # pip install kenlm, too
    python -m benchmarks.ctc_search --compile    # Lectern's with compile=True as well
    python -m benchmarks.ctc_search --hour       # only Lectern's, an hour in pieces
    python -m benchmarks.ctc_search --clock processor --threads 1    # on a machine that others use, too

Posteriors: ``real`` (what a checkpoint hears in clips, several one after the other), ``peaky`` (made up: seven frames
of ten are blank, as a trained model's), ``said`` (made up: sentences in word pieces) and ``flat`` (noise). Each search
gets the same ones, in the batch that it takes: Lectern's all at once, the others one at a time. The score is the mean
of log P(best text), summed over all alignments (and the language model's part), so that pruning shows; where it is
known what was said there is a WER, too. "Below greedy" counts the texts whose score is less than that of greedy's.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from src.datasets import CustomDirDataset
from src.decoding import CTCBeamSearch, CTCGreedySearch
from src.decoding.pyctcdecode_adapter import PyCTCDecodeSearch
from src.lm import NGramLM, WordNGramScorer
from src.metrics import corpus_error_rates
from src.recognizer import Recognizer
from src.text_encoder import BPETextEncoder, CharTextEncoder, normalize
from src.text_encoder.corpus import read_lines
from src.utils.memory import peak_memory

ROOT = Path(__file__).parents[1]
LM_WEIGHT = 0.5
UNKNOWN_LOG10 = -10.0  # what pyctcdecode adds for words that its language model lacks
NOTHING = -1e9
OWN, GREEDY = "lectern", "greedy"
Texts = list[list[int]]
Search = Callable[[Tensor, Tensor], Texts]
CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}


@dataclass
class Posteriors:
    """log_probs [B, T, V], lengths [B], the tokens by id, and what was said where that is known."""

    name: str
    log_probs: Tensor
    lengths: Tensor
    tokens: list[str]
    references: list[str] | None = None

    def text(self, tokens: list[int]) -> str:
        return " ".join("".join(self.tokens[token] for token in tokens).replace("▁", " ").split())


def made_up_tokens(vocabulary: int) -> list[str]:
    """The character tokenizer's where the number fits; else signs."""
    tokens = CharTextEncoder().tokens
    return (
        tokens
        if vocabulary == len(tokens)
        else ["", *(chr(0x4E00 + number) for number in range(vocabulary - 1))]
    )


def peaky(batch: int, frames: int, vocabulary: int) -> Posteriors:
    """One token stands out in each frame, mostly the blank; now and then two are nearly alike."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(batch, frames, vocabulary, generator=generator)
    token = torch.randint(1, vocabulary, (batch, frames), generator=generator)
    best = torch.where(torch.rand(batch, frames, generator=generator) < 0.7, 0, token).unsqueeze(2)
    height = 4 + 8 * torch.rand(batch, frames, 1, generator=generator)
    log_probs = logits.scatter_add(2, best, height).log_softmax(-1)
    return Posteriors("peaky", log_probs, torch.full((batch,), frames), made_up_tokens(vocabulary))


def said(batch: int, frames: int, tokenizer: Path, text: Path) -> Posteriors:
    """``peaky`` with sense: sentences of a text in word pieces, one frame a piece and blanks between, noisily."""
    text_encoder = BPETextEncoder(tokenizer)
    lines = (normalize(line) for line in read_lines(text))
    generator, tokens = torch.Generator().manual_seed(2), text_encoder.tokens
    logits = torch.randn(batch, frames, len(tokens), generator=generator)
    references, best = [], torch.zeros(batch, frames, 1, dtype=torch.long)
    places = torch.arange(1, frames, 3)
    for row in range(batch):
        words, pieces = [], []
        for line in filter(None, lines):
            more = text_encoder.encode(line)
            if len(pieces) + len(more) > len(places):
                break
            words, pieces = [*words, line], [*pieces, *more]
        best[row, places[: len(pieces)], 0] = torch.tensor(pieces)
        references.append(" ".join(words))
    height = 4 + 4 * torch.rand(batch, frames, 1, generator=generator)
    log_probs = logits.scatter_add(2, best, height).log_softmax(-1)
    return Posteriors("said", log_probs, torch.full((batch,), frames), tokens, references)


def flat(batch: int, frames: int, vocabulary: int) -> Posteriors:
    generator = torch.Generator().manual_seed(1)
    log_probs = torch.randn(batch, frames, vocabulary, generator=generator).log_softmax(-1)
    return Posteriors("flat", log_probs, torch.full((batch,), frames), made_up_tokens(vocabulary))


def real(batch: int, frames: int, checkpoint: Path, data: Path) -> Posteriors:
    """Clips one after the other, as many as fit into so many frames; each row begins with another clip."""
    recognizer = Recognizer.load(checkpoint)
    dataset = CustomDirDataset(data)
    clips = []
    for row in range(min(len(dataset), 200)):
        utterance = dataset[row]
        batch_of_one = {
            "audio": torch.from_numpy(utterance.audio)[None],
            "audio_lengths": torch.tensor([len(utterance.audio)]),
        }
        log_probs, _ = recognizer.model.search_inputs(recognizer.listen(batch_of_one))
        if log_probs.size(1) < frames:
            clips.append((log_probs[0], normalize(utterance.text or "")))
    rows, references = [], []
    tokens = recognizer.text_encoder.tokens
    space = torch.full((1, len(tokens)), 1e-6)  # a frame between clips, so that their words stay apart
    space[0, tokens.index("▁") if "▁" in tokens else 0] = 1.0
    step = max(1, len(clips) // batch)
    for first in range(batch):
        pieces, words, count = [], [], 0
        for log_probs, text in islice(cycle(clips), first * step, first * step + 100):
            if count + len(log_probs) >= frames:
                break
            pieces += [space.log(), log_probs] if pieces else [log_probs]
            words.append(text)
            count += len(log_probs) + 1
        rows.append(torch.cat(pieces))
        references.append(" ".join(words))
    padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    lengths = torch.tensor([len(row) for row in rows])
    return Posteriors("real", padded, lengths, recognizer.text_encoder.tokens, references)


def greedy(log_probs: Tensor, lengths: Tensor) -> Texts:
    return [found[0].tokens for found in CTCGreedySearch()(log_probs, lengths)]


def lectern(**settings) -> Search:
    search = CTCBeamSearch(**settings)
    return lambda log_probs, lengths: [found[0].tokens for found in search(log_probs, lengths)]


def pyctcdecode(tokens: list[str], beam_size: int, lm: Path | None, prunes: bool) -> Search:
    limits = {} if prunes else {"token_min_log_prob": NOTHING, "beam_prune_log_prob": NOTHING}
    path = None if lm is None else str(lm)
    search = PyCTCDecodeSearch(tokens, beam_size, path, alpha=LM_WEIGHT, beta=0.0, **limits)
    return lambda log_probs, lengths: [found[0].tokens for found in search(log_probs, lengths)]


def flashlight(tokens: list[str], beam_size: int) -> Search:
    """torchaudio's ``ctc_decoder``, nothing pruned but the beam."""
    from torchaudio.models.decoder import ctc_decoder

    names = ["<blank>", *tokens[1:]]
    decoder = ctc_decoder(
        lexicon=None,
        tokens=names,
        blank_token="<blank>",
        sil_token=names[1],
        beam_size=beam_size,
        beam_size_token=len(names),
        beam_threshold=-NOTHING,
        log_add=True,
    )

    def run(log_probs: Tensor, lengths: Tensor) -> Texts:
        rows = zip(log_probs.float(), lengths, strict=True)
        found = [
            decoder(row[None, :length].contiguous(), length[None])[0][0].tokens.tolist()
            for row, length in rows
        ]
        return [[token for token in row[1:-1] if token] for row in found]  # without the silence around

    return run


def searches(
    posteriors: Posteriors, beam_size: int, lm: Path | None, compiled: bool, fold_sure: float, top_k: int
) -> Iterator[tuple[str, Callable[[], Search]]]:
    """Names and makers; those of other packages raise where one is missing."""
    tokens, settings = posteriors.tokens, {"beam_size": beam_size}
    yield GREEDY, lambda: greedy
    if lm is not None:
        scorer = WordNGramScorer(lm, tokens, unknown_penalty=UNKNOWN_LOG10 * math.log(10))
        settings["scorers"] = [(scorer, LM_WEIGHT)]
    folding = {**settings, "fold_sure": fold_sure}
    pruning = {**folding, "token_min_log_prob": -5.0, "token_top_k": top_k}  # pyctcdecode has the same limit
    yield OWN, lambda: lectern(**settings)
    yield f"{OWN}, sure frames folded", lambda: lectern(**folding)
    yield f"{OWN}, rare tokens too", lambda: lectern(**pruning)
    if compiled:
        yield f"{OWN}, compiled", lambda: lectern(**settings, compile=True)
        yield f"{OWN}, sure frames folded, compiled", lambda: lectern(**folding, compile=True)
        yield f"{OWN}, rare tokens too, compiled", lambda: lectern(**pruning, compile=True)
    if lm is None:
        yield "flashlight (torchaudio)", lambda: flashlight(tokens, beam_size)
    yield "pyctcdecode, its pruning", lambda: pyctcdecode(tokens, beam_size, lm, prunes=True)
    yield "pyctcdecode", lambda: pyctcdecode(tokens, beam_size, lm, prunes=False)


def scores(posteriors: Posteriors, texts: Texts, lm: NGramLM | None) -> list[float]:
    """For each utterance log P(best text), and the language model's weighted part."""
    found = []
    for row, length, tokens in zip(posteriors.log_probs.double(), posteriors.lengths, texts, strict=False):
        row = row[:length]
        if tokens:
            target, sizes = torch.tensor(tokens), (length, torch.tensor(len(tokens)))
            total = -float(F.ctc_loss(row, target, *sizes, reduction="sum"))
        else:
            total = float(row[:, 0].sum())
        if lm is not None:
            text = posteriors.text(tokens)
            unknown = sum(word not in lm.ids for word in text.split())
            total += LM_WEIGHT * math.log(10) * (lm.score(text) + UNKNOWN_LOG10 * unknown)
        found.append(total)
    return found


class Timed:
    """A search that takes turns with others; one that would take longer than ``patience`` gets fewer utterances."""

    def __init__(
        self,
        search: Search,
        posteriors: Posteriors,
        patience: float,
        takes_batches: bool,
        clock: Callable[[], float],
    ) -> None:
        log_probs, lengths = posteriors.log_probs, posteriors.lengths
        count = len(log_probs)
        if takes_batches:
            search(log_probs, lengths)  # what is made, or compiled, at the first use
        else:
            search(log_probs[:1, :10], lengths[:1].clamp(max=10))
            started = clock()
            search(log_probs[:1], lengths[:1])
            count = max(1, min(count, int(patience / (clock() - started))))
        self.clock = clock
        self.search, self.log_probs, self.lengths = search, log_probs[:count], lengths[:count]
        self.patience, self.seconds = patience, []

    def turn(self) -> None:
        if sum(self.seconds) < self.patience:
            started = self.clock()
            self.texts = self.search(self.log_probs, self.lengths)
            self.seconds.append(self.clock() - started)

    @property
    def speed(self) -> float:
        """Utterances a second."""
        return len(self.log_probs) / statistics.median(self.seconds)


def rows_of(
    timed: dict[str, Timed], posteriors: Posteriors, beam_size: int, lm: NGramLM | None
) -> Iterator[dict]:
    """What is known of each search; greedy's comes first, and Lectern's before the other packages'."""
    for name, search in timed.items():
        found = scores(posteriors, search.texts, lm)
        row = {"posteriors": posteriors.name, "tokens": len(posteriors.tokens), "beam": beam_size}
        row |= {"search": name, "utterances_per_s": search.speed, "utterances": len(found)}
        row["score"] = statistics.mean(found)
        if name == GREEDY:
            least = found
        if name == OWN:
            own = found
        row["below_greedy"] = sum(s < g - 1e-3 for s, g in zip(found, least, strict=False))
        if len(found) < len(posteriors.lengths):  # too slow for all: a mean over the same ones
            row["lectern_on_these"] = statistics.mean(own[: len(found)])
        if posteriors.references is not None:
            heard = [posteriors.text(tokens) for tokens in search.texts]
            row["wer"] = corpus_error_rates(posteriors.references[: len(heard)], heard)["wer"]
        yield row


def line_of(row: dict) -> str:
    compared = f" (Lectern on these {row['lectern_on_these']:.2f})" if "lectern_on_these" in row else ""
    wer = f"  WER {100 * row['wer']:.2f} %" if "wer" in row else ""
    return (
        f"{row['posteriors']:6} V={row['tokens']:<4} beam {row['beam']:<4} {row['search']:38} "
        f"{row['utterances_per_s']:8.1f} utterances/s   score {row['score']:.2f} of {row['utterances']}, "
        f"{row['below_greedy']} below greedy{compared}{wer}"
    )


def an_hour(beam_size: int, piece: int = 1000) -> None:
    """90,000 frames of 40 ms in pieces, as they come from a long recording; prints seconds and megabytes."""
    search, lengths = CTCBeamSearch(beam_size), torch.tensor([piece])
    beam, before = search.start(batch_size=1), peak_memory(torch.device("cpu"))
    started = time.perf_counter()
    posteriors = peaky(1, piece, 29).log_probs
    for _ in range(90_000 // piece):
        search.advance(beam, posteriors, lengths)
    tokens = search.finish(beam)[0][0].tokens
    grown = (peak_memory(torch.device("cpu")) - before) / 1e6
    seconds = time.perf_counter() - started
    print(
        f"an hour, beam {beam_size}: {seconds:.1f} s, {grown:.0f} MB more than before, {len(tokens)} tokens"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--vocabularies", type=int, nargs="+", default=[29, 500], help="of made-up posteriors"
    )
    parser.add_argument("--beams", type=int, nargs="+", default=[16, 100])
    parser.add_argument("--posteriors", nargs="+", default=["real", "peaky", "flat"])
    parser.add_argument("--checkpoint", type=Path, default=ROOT / "checkpoints" / "demo")
    parser.add_argument("--data", type=Path, default=ROOT / "samples")
    parser.add_argument(
        "--tokenizer", type=Path, help="of ``said``: a tokenizer.model of scripts/train_tokenizer.py"
    )
    parser.add_argument("--text", type=Path, help="of ``said``: lines to say, .txt or .gz")
    parser.add_argument("--lm", type=Path, help="a word n-gram model, ARPA")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--frames", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--patience", type=float, default=20, help="seconds for each search, about")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--compile", action="store_true", help="Lectern's compiled as well")
    parser.add_argument(
        "--clock", choices=CLOCKS, default="wall", help="processor: others' programs do not count"
    )
    parser.add_argument(
        "--without", nargs="+", default=[], help="searches to leave out, such as pyctcdecode: too slow"
    )
    parser.add_argument("--fold-sure", type=float, default=0.9, help="of the rows that fold")
    parser.add_argument("--top-k", type=int, default=8, help="tokens of a frame where rare ones are left out")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--hour", action="store_true", help="only Lectern, on an hour of frames in pieces")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.hour:
        for beam_size in args.beams:
            an_hour(beam_size)
        return
    shape = (args.batch, args.frames)
    inputs = [real(*shape, args.checkpoint, args.data)] if "real" in args.posteriors else []
    makers = {"peaky": peaky, "flat": flat}
    if "said" in args.posteriors:
        inputs.append(said(*shape, args.tokenizer, args.text))
    inputs += [makers[n](*shape, size) for size in args.vocabularies for n in args.posteriors if n in makers]
    lm = None if args.lm is None else NGramLM.open(args.lm)
    rows = []
    for posteriors in inputs:
        for beam_size in args.beams:
            torch.compiler.reset()  # searches of another beam are gone
            timed = {}
            speeds = args.compile, args.fold_sure, args.top_k
            for name, make in searches(posteriors, beam_size, args.lm, *speeds):
                if name in args.without:
                    continue
                is_ours = name.startswith((OWN, GREEDY))
                try:
                    timed[name] = Timed(make(), posteriors, args.patience, is_ours, CLOCKS[args.clock])
                except Exception as error:  # a package that is not there or refuses these tokens
                    if is_ours:
                        raise
                    print(f"left out: {name} ({str(error).splitlines()[0]})")
            for _ in range(args.rounds):
                for search in timed.values():
                    search.turn()
            for row in rows_of(timed, posteriors, beam_size, lm):
                rows.append(row)
                print(line_of(row), flush=True)
            if args.json:
                args.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
