"""Utterances that a transducer's searches decode in a second: greedy, beam, beam with a word 3-gram, and torchaudio's.

    python -m benchmarks.transducer_search --json search.json
    python -m benchmarks.transducer_search --checkpoint saved/MY_RNNT --data MY_DEV --lm words.arpa

Without a checkpoint the model is made up: random weights, and encodings that drive its joiner, so that seven frames of
ten are surely blank, and in the others one token stands out, more or less. With one, real clips are searched in.
Lectern's searches take a batch, and turns in one process; torchaudio's ``RNNTBeamSearch`` gets the same predictor
and joiner and the same limit of a token a frame, one utterance at a time. The score is the mean of log P(best text),
summed over all alignments (of any number of tokens a frame). Times are processor time of one thread, to which
neighbours add little.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import yaml
from torch import Tensor, nn

from src.datasets import CustomDirDataset
from src.decoding import TransducerBeamSearch, TransducerGreedySearch
from src.lm import NGramLM, WordNGramScorer
from src.loss.fused_transducer import fused_transducer_loss
from src.metrics import corpus_error_rates
from src.model import LSTMPredictor, StatelessPredictor, TransducerModel
from src.model.encoders import MLPEncoder
from src.recognizer import Recognizer
from src.text_encoder import CharTextEncoder, normalize
from src.transforms import LogMel

ROOT = Path(__file__).parents[1]
LM_WEIGHT = 0.3
# As in the recipes: each with its dim, which is the joiner's, too.
PREDICTORS = {"lstm": (LSTMPredictor, 320), "stateless": (StatelessPredictor, 144)}
Texts = list[list[int]]
Search = Callable[[], Texts]


@dataclass
class Case:
    """A transducer and what its encoder heard: joint_encoded [B, T, H], lengths [B]; tokens by id; what was said."""

    name: str
    model: TransducerModel
    joint_encoded: Tensor
    lengths: Tensor
    tokens: list[str]
    references: list[str]

    def text(self, tokens: list[int]) -> str:
        return " ".join("".join(self.tokens[token] for token in tokens).replace("▁", " ").split())

    def rows(self) -> list[tuple[Tensor, Tensor]]:
        return [(row[None, :n], n[None]) for row, n in zip(self.joint_encoded, self.lengths, strict=True)]


def made_up_tokens(vocabulary: int) -> list[str]:
    """The character tokenizer's where the number fits; else syllables, a third of which begin a word."""
    tokens = CharTextEncoder().tokens
    if vocabulary == len(tokens):
        return tokens
    letters = "abcdefghijklmnopqrstuvwxyz"
    syllables = [a + b for a in letters for b in letters]
    return ["", *("▁" * (i % 3 == 0) + syllables[i] for i in range(vocabulary - 1))]


@torch.no_grad()
def made_up(batch: int, frames: int, vocabulary: int, predictor: str) -> Case:
    """Each token has a pattern of the joiner's hidden layer, the signs of its row of the output layer.

    An encoding is the pattern of what is said in that frame, more or less of it; the predictor takes away the pattern
    of the last token, so that the blank wins, which has a bias.
    """
    torch.manual_seed(0)
    kind, dim = PREDICTORS[predictor]
    model = TransducerModel(
        LogMel(80), MLPEncoder(80, dim=8, stack=2), kind(vocabulary, dim), vocabulary, joint_dim=dim
    ).eval()
    patterns = model.output.weight.sign()
    model.output.weight *= 4
    model.output.bias[0] = 0.9 * dim**0.5
    model.predictor.embedding.weight.copy_(0.2 * patterns)
    if predictor == "stateless":  # the older token counts less; nothing is cut off by the ReLU
        model.predictor.convolution.weight[..., 0] *= 0.2
        model.predictor.convolution.bias += 1.0
    texts = torch.randint(1, vocabulary, (100, 60))
    outputs = model.predictor(texts)[:, 1:].flatten(0, 1)
    taken = torch.linalg.lstsq(outputs.double(), -patterns[texts.flatten()].double()).solution
    model.from_predictor.weight.copy_(taken.T)
    spoken = torch.rand(batch, frames) < 0.3
    token = torch.where(spoken, torch.randint(1, vocabulary, (batch, frames)), 0)
    joint_encoded = (0.7 + 0.8 * torch.rand(batch, frames, 1)) * patterns[token] * spoken.unsqueeze(2)
    joint_encoded += 0.3 * torch.randn(joint_encoded.shape)
    lengths = torch.full((batch,), frames)
    case = Case(f"made up, {predictor}", model, joint_encoded, lengths, made_up_tokens(vocabulary), [])
    case.references = [case.text(row[row > 0].tolist()) for row in token]
    return case


def real(batch: int, checkpoint: Path, data: Path) -> Case:
    """The longest clips of a folder."""
    recognizer = Recognizer.load(checkpoint, device="cpu")
    dataset = CustomDirDataset(data)
    longest = sorted(range(len(dataset)), key=lambda row: -dataset.durations[row])[:batch]
    clips = [dataset[row] for row in longest]
    audio = [torch.from_numpy(clip.audio) for clip in clips]
    outputs = recognizer.listen(
        {
            "audio": nn.utils.rnn.pad_sequence(audio, batch_first=True),
            "audio_lengths": torch.tensor([len(clip) for clip in audio]),
        }
    )
    inputs = recognizer.model.search_inputs(outputs)
    return Case(
        checkpoint.name,
        *inputs,
        recognizer.text_encoder.tokens,
        [normalize(clip.text or "") for clip in clips],
    )


class ForTorchaudio(nn.Module):
    """The same predictor and joiner as ``torchaudio.models.RNNTBeamSearch`` asks for them: its blank comes last."""

    def __init__(self, model: TransducerModel) -> None:
        super().__init__()
        self.model = model

    def transcribe(self, joint_encoded: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        return joint_encoded, lengths

    def predict(self, tokens: Tensor, lengths: Tensor, state: list | None) -> tuple[Tensor, Tensor, list]:
        """tokens [n, 1], its own numbers."""
        before = self.model.predictor.begin(len(tokens)) if state is None else tuple(state[0])
        own = (tokens[:, 0] + 1) % self.model.output.out_features
        predicted, after = self.model.predict(own, before)
        return predicted[:, None], lengths, [list(after)]

    def join(self, encoded: Tensor, _: Tensor, predicted: Tensor, __: Tensor) -> tuple[Tensor, None, None]:
        """[1, 1, H] and [n, 1, H] -> [n, 1, 1, V]."""
        logits = self.model.output((encoded + predicted).tanh()).unsqueeze(1)
        return logits.roll(-1, 3), None, None


def lectern(case: Case, search: TransducerGreedySearch | TransducerBeamSearch) -> Search:
    inputs = case.model, case.joint_encoded, case.lengths
    return lambda: [found[0].tokens for found in search(*inputs)]


def torchaudio(case: Case, beam_size: int, count: int) -> Search:
    from torchaudio.models import RNNTBeamSearch

    blank = case.model.output.out_features - 1
    search = RNNTBeamSearch(
        ForTorchaudio(case.model), blank, hypo_sort_key=lambda hypothesis: hypothesis[3], step_max_tokens=1
    )

    @torch.inference_mode()
    def run() -> Texts:
        best = [search(*row, beam_size)[0] for row in case.rows()[:count]]
        return [[token + 1 for token in hypothesis[0][1:]] for hypothesis in best]

    return run


@torch.no_grad()
def mean_score(case: Case, texts: Texts) -> float:
    """Mean over utterances of log P(best text)."""
    total, output = 0.0, case.model.output
    for (encoded, length), tokens in zip(case.rows(), texts, strict=False):
        targets = torch.tensor([tokens], dtype=torch.long)
        predicted = case.model.from_predictor(case.model.predictor(targets))
        size = torch.tensor([len(tokens)])
        total -= float(
            fused_transducer_loss(encoded, predicted, output.weight, output.bias, targets, length, size)
        )
    return total / len(texts)


def searches(case: Case, args: argparse.Namespace) -> dict[str, Search]:
    """By name; with the beam's settings of the recipes, which are those of checkpoints, too."""
    settings = yaml.safe_load((ROOT / "src/configs/decoders/transducer.yaml").read_text())["beam"]
    settings = {key: value for key, value in settings.items() if key != "_target_"}
    settings |= {} if args.beam is None else {"beam_size": args.beam}
    lm = NGramLM.estimate(case.references, order=3) if args.lm is None else NGramLM.open(args.lm)
    scorer = WordNGramScorer(lm, case.tokens, unknown_penalty=-5.0)
    found = {
        "greedy": lectern(case, TransducerGreedySearch()),
        f"beam {settings['beam_size']}": lectern(case, TransducerBeamSearch(**settings)),
        "the same, without a threshold": lectern(
            case, TransducerBeamSearch(**{**settings, "beam_threshold": None})
        ),
        "the same, with a word 3-gram": lectern(
            case, TransducerBeamSearch(**settings, scorers=[(scorer, LM_WEIGHT)])
        ),
    }
    if args.peer:
        found["torchaudio"] = torchaudio(case, settings["beam_size"], args.peer)
    return found


def measured(searches: dict[str, Search], rounds: int) -> dict[str, tuple[float, Texts]]:
    """Seconds of processor time of each one's fastest round, and texts; they take turns."""
    texts = {name: search() for name, search in searches.items()}
    seconds: dict[str, list[float]] = {name: [] for name in searches}
    for _ in range(rounds):
        for name, search in searches.items():
            started = time.process_time()
            search()
            seconds[name].append(time.process_time() - started)
    return {name: (min(seconds[name]), texts[name]) for name in searches}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--vocabularies", type=int, nargs="+", default=[29, 500], help="of made-up models")
    parser.add_argument("--predictors", nargs="+", default=list(PREDICTORS), choices=list(PREDICTORS))
    parser.add_argument(
        "--checkpoint", type=Path, help="a transducer's; with --data: instead of made-up models"
    )
    parser.add_argument("--data", type=Path, default=ROOT / "samples")
    parser.add_argument("--lm", type=Path, help="a word n-gram model (default: one of what was said)")
    parser.add_argument("--beam", type=int, help="instead of the recipes'")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--frames", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peer", type=int, default=2, help="utterances for torchaudio; 0: leave it out")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.checkpoint:
        cases = [real(args.batch, args.checkpoint, args.data)]
    else:
        kinds = [(size, name) for size in args.vocabularies for name in args.predictors]
        cases = [made_up(args.batch, args.frames, *kind) for kind in kinds]
    rows = []
    for case in cases:
        results = measured(searches(case, args), args.rounds)
        greedy = results["greedy"][0] / len(results["greedy"][1])
        for name, (seconds, texts) in results.items():
            each = seconds / len(texts)
            heard = [case.text(tokens) for tokens in texts]
            row = {"model": case.name, "tokens": len(case.tokens), "search": name, "utterances": len(texts)}
            row |= {"utterances_per_s": 1 / each, "times_greedy": each / greedy}
            row |= {"score": mean_score(case, texts)}
            row["wer"] = corpus_error_rates(case.references[: len(heard)], heard)["wer"]
            rows.append(row)
            print(
                f"{case.name:20} V={row['tokens']:<4} {name:30} {1 / each:8.1f} utterances/s"
                f"  {row['times_greedy']:6.2f} x greedy  log P {row['score']:8.2f} of {len(texts)}"
                f"  WER {100 * row['wer']:.2f} %",
                flush=True,
            )
        if args.json:
            args.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
