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

from src.text_encoder import BPETextEncoder, train_bpe
from src.text_encoder.corpus import read_corpus
from src.utils.errors import door
from src.utils.files import check_output, written_whole


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

    lines = read_corpus(arguments.text)
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
    print(f"learnt from {len(lines):,} lines; a token holds {letters_per_token:.2f} characters on average")
    print(f"wrote {path} ({encoder.vocab_size} tokens, the blank included)")


if __name__ == "__main__":
    main()
