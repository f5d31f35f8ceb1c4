"""Writes the tables of docs/results.md and README.md from results/*.json, between their markers.

    python scripts/render_results.py

A result is a JSON file with: model, data, dev (what it was measured on), scores (search -> [WER %, CER %]),
parameters_m, minutes, machine, seed, commit, commands. Nothing in the tables is written by hand.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from src.utils.errors import UserError, door

BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"
KEYS = ("model", "data", "dev", "scores", "parameters_m", "minutes", "machine", "seed", "commit", "commands")


def load_results() -> dict[str, dict]:
    """name -> result, in the order of the file names."""
    results = {}
    for file in sorted((ROOT / "results").glob("*.json")):
        result = json.loads(file.read_text(encoding="utf-8"))
        missing = [key for key in KEYS if key not in result]
        if missing:
            raise UserError(f"{file}: has no {', '.join(missing)}; add it")
        results[file.stem] = result
    return results


def short_table(results: dict[str, dict]) -> str:
    """A Markdown table, one row a model, of what fits a page."""
    lines = ["| model | trained on | WER greedy | WER beam |", "|---|---|---|---|"]
    for result in results.values():
        greedy, beam = (f"{result['scores'][search][0]:.1f} %" for search in ("greedy", "beam"))
        lines.append(f"| {result['model']} | {result['data']} | {greedy} | {beam} |")
    return "\n".join(lines)


def table(results: dict[str, dict]) -> str:
    """A Markdown table, one row a model, and the commands of each row below it."""
    lines = [
        "| model | trained on | measured on | greedy WER / CER | beam WER / CER | parameters | training |",
        "|---|---|---|---|---|---|---|",
    ]
    for result in results.values():
        scores = [
            "{:.2f} / {:.2f} %".format(*result["scores"][s]) if s in result["scores"] else "-"
            for s in ("greedy", "beam")
        ]
        lines.append(
            f"| {result['model']} | {result['data']} | {result['dev']} | {scores[0]} | {scores[1]} "
            f"| {result['parameters_m']:.1f} M | {result['minutes']} min, {result['machine']} |"
        )
    for name, result in results.items():
        heading = f"**{name}** (seed {result['seed']}, commit {result['commit']})"
        lines += ["", heading, "", "```bash", *result["commands"], "```"]
        lines += ["", result["note"]] if result.get("note") else []
    return "\n".join(lines)


def insert(page: str, content: str, file: Path) -> str:
    """The page with ``content`` between its markers."""
    if BEGIN not in page or END not in page:
        raise UserError(f"{file}: has no markers {BEGIN} and {END}; add them where the table belongs")
    before, rest = page.split(BEGIN, 1)
    return f"{before}{BEGIN}\n{content}\n{END}{rest.split(END, 1)[1]}"


PAGES = {ROOT / "README.md": short_table, ROOT / "docs" / "results.md": table}


def rendered(file: Path) -> str:
    return insert(file.read_text(encoding="utf-8"), PAGES[file](load_results()), file)


@door
def main() -> None:
    for file in PAGES:
        file.write_text(rendered(file), encoding="utf-8")
        print(f"wrote the table of {file}")


if __name__ == "__main__":
    main()
