"""Learns a BPE tokenizer (SentencePiece) from text: offline, and the same text always gives the same file.

    python scripts/train_tokenizer.py data/train --vocab-size 256 --out data/bpe256

Text may be files (.txt, .jsonl, .tsv, each also .gz), custom directories with a transcriptions folder,
LibriSpeech trees, or any folder of these. Everything is normalised first, as in training.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src.text_encoder import BPETextEncoder, normalize, train_bpe
from src.text_encoder.corpus import read_lines, text_files
from src.utils.errors import TextError, UserError, door
from src.utils.files import check_output, written_whole
from src.utils.progress import progress_bar


def read_corpus(paths: list[Path]) -> tuple[list[str], list[TextError]]:
    """Normalised, non-empty lines of all files, and why some files could not be read."""
    lines: list[str] = []
    skipped: list[TextError] = []
    for file in progress_bar(
        [file for path in paths for file in text_files(path)], desc="reading", unit="file"
    ):
        try:
            lines += filter(None, [normalize(line) for line in read_lines(file)])
        except TextError as error:
            skipped.append(error)
    return lines, skipped


@door
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("text", nargs="+", type=Path, help="files or folders with the training transcripts")
    parser.add_argument("--out", required=True, type=Path, help="folder for tokenizer.model")
    parser.add_argument(
        "--vocab-size", type=int, default=256, help="tokens, the blank included (default 256)"
    )
    arguments = parser.parse_args()
    path = arguments.out / BPETextEncoder.file_name
    check_output(path)

    lines, skipped = read_corpus(arguments.text)
    for error in skipped[:20]:
        print(f"skipped: {error}", file=sys.stderr)
    if skipped and not lines:
        raise UserError(f"none of {len(skipped)} files can be read; the first: {skipped[0]}")
    model = train_bpe(lines, arguments.vocab_size)
    with written_whole(path) as unfinished:
        unfinished.write_bytes(model)

    encoder = BPETextEncoder(path)
    sample = lines[:: max(1, len(lines) // 1000)]
    letters_per_token = sum(map(len, sample)) / sum(len(encoder.encode(line)) for line in sample)
    foreign = sorted(
        {letter for token in encoder.tokens[1:] for letter in token} - set("▁'abcdefghijklmnopqrstuvwxyz")
    )
    if foreign:
        print(f"note: letters outside a-z became tokens: {''.join(foreign[:40])}")
    if skipped:
        print(f"note: {len(skipped)} files could not be read and were left out")
    print(f"learnt from {len(lines):,} lines; a token holds {letters_per_token:.2f} characters on average")
    print(f"wrote {path} ({encoder.vocab_size} tokens, the blank included)")


if __name__ == "__main__":
    main()
