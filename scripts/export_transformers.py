"""Writes a checkpoint as a directory that ``transformers`` loads without the project:

    python scripts/export_transformers.py checkpoints/demo --out exported/demo --decoder beam

    pipeline("automatic-speech-recognition", model="exported/demo", trust_remote_code=True)("my.wav")

Its code is one file, made from the project's own sources.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src.export.directory import MODELING, export_for_transformers
from src.utils.errors import UserError, door


@door
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", type=Path, help="a checkpoint directory or a run, of any family")
    parser.add_argument("--out", type=Path, required=True, help="the directory, which is replaced")
    parser.add_argument(
        "--decoder", default="greedy", help="its search, one of the checkpoint's (default greedy)"
    )
    parser.add_argument(
        "--whole", action="store_true", help="with the weights of a hub's frozen networks, too"
    )
    arguments = parser.parse_args()
    # A config.json alone could be that of somebody's network.
    if arguments.out.exists() and not (arguments.out / f"{MODELING}.py").is_file():
        raise UserError(f"--out {arguments.out}: is there already, and no such directory; choose another")
    export_for_transformers(arguments.checkpoint, arguments.out, arguments.decoder, arguments.whole)
    for file in sorted(arguments.out.iterdir()):
        print(f"{file.stat().st_size / 2**20:9.2f} MiB  {file}")


if __name__ == "__main__":
    main()
