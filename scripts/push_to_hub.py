"""Puts a checkpoint, or what export_transformers.py made of one, into a repository of the Hugging Face hub.

    python scripts/push_to_hub.py checkpoints/demo owner/name
    python scripts/push_to_hub.py exported/demo owner/name --private

All files in one commit; of a run its best checkpoint, without what only resuming needs. The token is HF_TOKEN, or that
of `hf auth login`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src.checkpoint import Checkpoint
from src.export.directory import MODELING
from src.fetching.uploads import push
from src.utils.errors import UserError, door


def refuse_local_networks(checkpoint: Checkpoint) -> None:
    """Raises ``UserError`` for a speech LLM that names a folder of this machine, which nobody else has."""
    for name, part in checkpoint.config["model"].items():
        source = part.get("source") if isinstance(part, dict) else None
        if source is not None and Path(source).is_dir():
            raise UserError(
                f"{checkpoint.path}: its {name} lies in {source}, which nobody else has; push what "
                "scripts/export_transformers.py makes of it, which takes it along"
            )


@door
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=Path, help="a checkpoint directory, a run, or an exported directory")
    parser.add_argument("repository", help="owner/name; made if it is not there")
    parser.add_argument("--private", action="store_true", help="if it is made: nobody else sees it")
    parser.add_argument("--message", default="Upload by Lectern", help="of the commit")
    parser.add_argument("--endpoint", help="mirror of https://huggingface.co")
    arguments = parser.parse_args()
    folder = arguments.source
    if not (folder / f"{MODELING}.py").is_file():
        checkpoint = Checkpoint.open(folder)
        refuse_local_networks(checkpoint)
        folder = checkpoint.path
    address = push(folder, arguments.repository, arguments.message, arguments.private, arguments.endpoint)
    print(f"pushed {folder}: {address}")


if __name__ == "__main__":
    main()
