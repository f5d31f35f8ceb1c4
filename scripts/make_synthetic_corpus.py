"""Makes a synthetic speech corpus with eSpeak NG.

python scripts/make_synthetic_corpus.py --out data/corpus --hours 2
The same command run again goes on where it stopped, or says that all is there.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src.synthetic_speech.corpus import SPLITS, Settings, make_corpus
from src.synthetic_speech.grammar import STYLES
from src.utils.errors import UserError, door


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the corpus")
    size = parser.add_mutually_exclusive_group(required=True)
    size.add_argument("--hours", type=float, help="size of the training part in hours of speech")
    size.add_argument("--utterances", type=int, help="size of the training part in clips")
    parser.add_argument("--dev-utterances", type=int, default=100)
    parser.add_argument("--test-utterances", type=int, default=200)
    parser.add_argument("--voices", type=int, default=100, help="training voices (a fifth for dev and test)")
    parser.add_argument("--style", choices=sorted(STYLES), default="everyday", help="kind of sentences")
    parser.add_argument("--text", help="your own sentences, one a line (.txt or .gz), instead of the grammar")
    parser.add_argument("--noise", action="store_true", help="noise at 8 to 40 dB instead of 40 to 60 dB")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, metavar="N")
    return parser.parse_args()


@door
def main() -> None:
    options = vars(arguments())
    for name in ("hours", "utterances", "dev_utterances", "test_utterances", "voices", "processes"):
        if (value := options[name]) is not None and not 0 < value < math.inf:
            raise UserError(f"--{name.replace('_', '-')} {value}: must be above 0, and finite")
    out, processes = options.pop("out"), options.pop("processes")
    settings = Settings(**options)
    start = time.monotonic()
    record = make_corpus(out, settings, processes)
    if not record["written"]:
        print(f"{out}: complete, nothing to do")
    for split in SPLITS:
        part = record["splits"][split]
        print(
            f"{split:5s} {part['utterances']:7d} clips {part['hours']:8.2f} h {part['speakers']:4d} voices "
            f"{part['distinct_sentences']:7d} sentences"
        )
    if record["written"]:
        minutes = (time.monotonic() - start) / 60
        clips, hours = (
            sum(part[key] for part in record["splits"].values()) for key in ("utterances", "hours")
        )
        print(
            f"made {out}: {clips} clips, {hours:.2f} h, {record['written_s'] / 3600 / minutes:.1f} hours per minute"
        )


if __name__ == "__main__":
    main()
