"""Runs the commands of a measured row (results/NAME.json) again and compares the error rates.

    python scripts/reproduce.py quickstart
    python scripts/reproduce.py conformer_ctc_an4 AN4_TRAIN=data/an4_train AN4_DEV=data/an4_dev

A run that lies in saved/ already goes on, or is only measured when it is complete. --write puts what was measured
into the row; python scripts/render_results.py then renews the tables. A WER further off than --tolerance ends with
exit status 1.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from src.utils.errors import UserError, door


def commands(row: dict, inputs: dict[str, str]) -> str:
    """The row's shell commands with its inputs (name -> folder) filled in. ``UserError`` for a missing one."""
    script = "\n".join(row["commands"])
    for name, meaning in row.get("inputs", {}).items():
        if name not in inputs:
            raise UserError(f"this row needs {meaning}; add {name}=FOLDER")
        script = script.replace(name, shlex.quote(str(Path(inputs[name]).resolve())))
    return script


def measured(row: dict, root: Path = ROOT) -> dict[str, list[float]]:
    """search -> [WER %, CER %], from the reports that ``calc_metrics.py --json`` wrote."""
    scores = {}
    for search, file in row["reports"].items():
        try:
            report = json.loads((root / file).read_text(encoding="utf-8"))
        except OSError as error:
            raise UserError(f"{root / file}: {error.strerror}; the commands should have written it") from None
        scores[search] = [round(100 * report[rate], 2) for rate in ("wer", "cer")]
    return scores


@door
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = sorted(file.stem for file in (ROOT / "results").glob("*.json"))
    parser.add_argument("name", choices=names, metavar="NAME", help=f"one of {', '.join(names)}")
    parser.add_argument("inputs", nargs="*", metavar="INPUT=FOLDER", help="data that is not in the clone")
    parser.add_argument(
        "--tolerance", type=float, default=2.0, help="WER points that still count as equal (default 2)"
    )
    parser.add_argument("--write", action="store_true", help="put the new figures into the row")
    arguments = parser.parse_args()

    file = ROOT / "results" / f"{arguments.name}.json"
    row = json.loads(file.read_text(encoding="utf-8"))
    script = commands(row, dict(text.split("=", 1) for text in arguments.inputs if "=" in text))
    print(script, flush=True)
    # The same Python for `python`, also when no environment has been activated.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script], cwd=ROOT, env={**os.environ, "PATH": path}
    )
    if done.returncode:
        raise UserError(f"{file}: its commands ended with status {done.returncode}; see above")
    now = measured(row)
    print(f"\n{'search':<8} {'WER/CER in the row':>20} {'now':>16}")
    for search, rates in now.items():
        recorded = row["scores"].get(search, [float("nan")] * 2)
        print(f"{search:<8} {recorded[0]:>11.2f} / {recorded[1]:.2f} {rates[0]:>9.2f} / {rates[1]:.2f}")
    if arguments.write:
        row["scores"] = now
        file.write_text(json.dumps(row, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        print(f"wrote {file}; python scripts/render_results.py renews the tables")
        return
    if any(abs(rates[0] - row["scores"][search][0]) > arguments.tolerance for search, rates in now.items()):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
