"""How many numbers a model's parts hold, and how many of them are trained.

    python scripts/count_parameters.py checkpoints/demo
    python scripts/count_parameters.py -cn=speech_llm model=speech_llm_hubert

No weight is loaded or made: of a network that lies on a hub its config alone is read. (The tokenizer is read as for a
training; text_encoder.source=null does with bytes.)
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src.looking.anatomy import count_parts, subject_of
from src.utils.errors import door
from src.utils.profile_report import columns


@door
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    subject, _ = subject_of(parser)
    rows = {
        count.part: (
            f"{count.total:,}",
            f"{count.trainable:,}",
            f"{count.frozen:,}",
            f"{count.trainable / max(1, count.total):.2%}",
        )
        for count in count_parts(subject.bare())
    }
    print(subject.name)
    print(*columns(["part", "total", "trainable", "frozen", "trained"], rows, width=16), sep="\n")


if __name__ == "__main__":
    main()
