"""Estimates an n-gram language model from text: interpolated modified Kneser-Ney, of words or of tokens.

    python scripts/train_lm.py novels.txt.gz data/my_train --out data/lm/words.safetensors
    python scripts/train_lm.py novels.txt.gz --order 5 --tokens checkpoints/demo --out data/lm/tokens.safetensors

Text may be files (.txt, .jsonl, .tsv, each also .gz) and folders, as for train_tokenizer.py; it is normalised as in
training. An --out that ends in .arpa or .arpa.gz is written for every toolkit to read; any other is Lectern's binary
form, which opens at once.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src.checkpoint import find_checkpoint
from src.lm import NGramLM
from src.text_encoder import TextEncoder, load_text_encoder, normalize
from src.text_encoder.corpus import read_lines, text_files
from src.utils.errors import TextError, UserError, door
from src.utils.files import check_output
from src.utils.progress import progress_bar


def sentences(paths: list[Path], encoder: TextEncoder | None, skipped: list[str]) -> Iterator[str]:
    """The lines of all files as the words, or the tokens, to count; what could not be used goes to ``skipped``."""
    files = [file for path in paths for file in text_files(path)]
    for file in progress_bar(files, desc="reading", unit="file"):
        try:
            for line in progress_bar(
                read_lines(file), desc=file.name, unit="line", unit_scale=True, leave=False
            ):
                yield from _counted(normalize(line), encoder, skipped)
        except TextError as error:
            skipped.append(str(error))


def _counted(text: str, encoder: TextEncoder | None, skipped: list[str]) -> list[str]:
    """The sentence as words or tokens; none where it is empty or has letters that the tokenizer lacks."""
    if not text:
        return []
    if encoder is None:
        return [text]
    try:
        return [" ".join(encoder.tokens[token] for token in encoder.encode(text))]
    except TextError as error:
        skipped.append(str(error))
        return []


@door
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("text", nargs="+", type=Path, help="files or folders with sentences")
    parser.add_argument("--out", required=True, type=Path, help="the file to write")
    parser.add_argument("--order", type=int, default=3, help="1 to 6 (default 3)")
    parser.add_argument(
        "--tokens", type=Path, metavar="DIR", help="count the tokens of this checkpoint, run or tokenizer"
    )
    parser.add_argument(
        "--prune",
        type=int,
        nargs="+",
        metavar="N",
        help="for each order, leave out what occurs at most N times",
    )
    arguments = parser.parse_args()
    check_output(arguments.out)

    encoder = None
    if arguments.tokens:
        is_tokenizer = any(arguments.tokens.glob("tokenizer.*"))
        encoder = load_text_encoder(arguments.tokens if is_tokenizer else find_checkpoint(arguments.tokens))
    skipped: list[str] = []
    lm = NGramLM.estimate(sentences(arguments.text, encoder, skipped), arguments.order, arguments.prune)
    for line in skipped[:20]:
        print(f"skipped: {line}", file=sys.stderr)
    if len(skipped) > 20:
        print(f"skipped: {len(skipped) - 20} more", file=sys.stderr)
    try:
        if arguments.out.name.endswith((".arpa", ".arpa.gz")):
            lm.to_arpa(arguments.out)
        else:
            lm.save(arguments.out)
    except OSError as error:
        raise UserError(f"{arguments.out}: cannot be written ({error}); choose another --out") from None
    sizes = ", ".join(f"{end - first:,}" for first, end in zip(lm.starts, lm.starts[1:], strict=False))
    unit = "tokens" if encoder else "words"
    print(f"wrote {arguments.out} ({len(lm.words):,} {unit}; n-grams of order 1 to {lm.order}: {sizes})")


if __name__ == "__main__":
    main()
