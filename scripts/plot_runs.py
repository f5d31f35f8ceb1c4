"""Draws the dev WER and the training loss of runs over their steps, side by side.

python scripts/plot_runs.py saved/a saved/b --out curves.png
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from matplotlib.backend_bases import FigureCanvasBase

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src.trainer.comparison import curves_figure
from src.utils.errors import UserError, door
from src.utils.files import check_output, written_whole


@door
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="a .png or .svg file")
    arguments = parser.parse_args()
    kinds = FigureCanvasBase.get_supported_filetypes()
    if arguments.out.suffix.lower().lstrip(".") not in kinds:
        raise UserError(f"--out {arguments.out}: no kind of picture; end it in .png or .svg")
    check_output(arguments.out)
    figure = curves_figure(arguments.runs)
    with written_whole(arguments.out) as unfinished:
        figure.savefig(unfinished, format=arguments.out.suffix.lower().lstrip("."), dpi=120)
    print(f"drew {len(arguments.runs)} runs into {arguments.out}")


if __name__ == "__main__":
    main()
