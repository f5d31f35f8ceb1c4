"""How a model is put together: its config as a blueprint, where its parts meet, and the tree of its modules.

    python scripts/explore_architecture.py checkpoints/demo --run
    python scripts/explore_architecture.py -cn=speech_llm model/projector=qformer --depth 2

The tree has each module's class, its own weights with their shapes, and how many numbers it holds with all below it;
with --run also the shape of what it makes of a second of sound (a speech LLM's writer: of the
prompt with it). Without, no weight is loaded or made.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src.looking.anatomy import (
    Component,
    blueprint,
    component_tree,
    interfaces,
    shapes_of_a_second,
    subject_of,
)
from src.model import SpeechModel
from src.utils.errors import UserError, door


def lines(components: Sequence[Component]) -> list[str]:
    """The tree as text, in columns."""
    left = [
        f"{'  ' * part.depth}{part.name}: {part.kind}{f' x {part.times}' if part.times > 1 else ''}"
        for part in components
    ]
    width = max(map(len, left))
    return [
        "  ".join(
            [
                f"{name:{width}}",
                f"{part.total * part.times:>14,}",
                *([f"-> {list(part.made)}"] if part.made else []),
                *(f"{key} {list(shape)}" for key, shape in part.weights.items()),
            ]
        ).rstrip()
        for name, part in zip(left, components, strict=True)
    ]


@door
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--depth", type=int, default=3, help="levels of the tree (default 3)")
    parser.add_argument(
        "--run",
        action="store_true",
        help="load the checkpoint, or make the config's model, and let it listen",
    )
    subject, options = subject_of(parser)
    if options.depth < 0:
        raise UserError(f"--depth {options.depth}: give at least 0")
    model = subject.whole() if options.run else subject.bare()
    if options.run and not isinstance(model, SpeechModel):
        raise UserError(f"--run: a {type(model).__name__} hears nothing; leave it out")
    made = shapes_of_a_second(model) if options.run else None
    print(subject.name, *blueprint(subject.config), sep="\n")
    print("\nwhere its parts meet", *interfaces(model), sep="\n  ")
    print("\nits modules", *lines([*component_tree(model, options.depth, made)]), sep="\n  ")


if __name__ == "__main__":
    main()
