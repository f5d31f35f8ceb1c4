"""Word and character error rate of a folder of predicted transcripts.

    python calc_metrics.py --references data/test/transcriptions --predictions saved/predictions
    python calc_metrics.py --references data/test/transcriptions --predictions with_lm --baseline without

Files are matched by id, the path below the folder without .txt. Both sides are normalised as in training.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from src.metrics import Score, score_folders
from src.utils.errors import UserError, door

NAMES_SHOWN = 20
# Of five utterances that differ, two equal systems favour the same one in 6 % of all cases (2 x 0.5^5); drawing them
# again does not show that, and its interval of one utterance, or of equal differences, has no width at all.
FEWEST_TO_TELL = 6


def comparison(
    score: Score, baseline: Score, interval: tuple[float, float], differing: int, name: Path
) -> str:
    """What the terminal shows of a baseline."""
    low, high = (100 * bound for bound in interval)
    verdict = "better" if high < 0 else "worse" if low > 0 else "no clear difference"
    if differing < FEWEST_TO_TELL and verdict != "no clear difference":
        verdict = f"too few utterances differ in word errors to tell ({differing}; it takes {FEWEST_TO_TELL})"
    difference = 100 * (score.words.rate - baseline.words.rate)
    lost = len(baseline.missing) + len(baseline.unreadable_predictions)
    note = f"\nnote: {lost} of {name} are missing or unreadable (counted as deletions)" if lost else ""
    return (
        f"against {name} (WER {100 * baseline.words.rate:.2f} %): {difference:+.2f} points, 95 % interval "
        f"{low:+.2f} to {high:+.2f} (paired bootstrap): {verdict}{note}"
    )


def report(score: Score, worst: int) -> str:
    """What the terminal shows; the two rates come first, each on its own line."""
    words = score.words
    low, high = (100 * bound for bound in score.wer_interval)
    lines = [
        f"WER {100 * words.rate:.2f} %",
        f"CER {100 * score.characters.rate:.2f} %",
        "",
        f"WER 95 % interval: {low:.2f} to {high:.2f} % (bootstrap over "
        f"{len(score.utterances)} utterance{'s' * (len(score.utterances) != 1)})",
        f"words: {words.reference_length} in the references, {words.substitutions} substituted, "
        f"{words.deletions} deleted, {words.insertions} inserted",
    ]
    if not words.reference_length:
        lines.append("note: the references hold no words, so the rates are counts of insertions times 100")
    for heading, names in (
        ("without a prediction (counted as deletions)", score.missing),
        ("with an unreadable prediction (not UTF-8; counted as deletions)", score.unreadable_predictions),
        ("with an unreadable reference (not UTF-8; not counted)", score.unreadable_references),
        ("without a reference (not counted)", score.unknown),
    ):
        if names:
            more = (
                f" and {len(names) - NAMES_SHOWN} more (--json lists all)" if len(names) > NAMES_SHOWN else ""
            )
            lines.append(f"{len(names)} {heading}: {', '.join(names[:NAMES_SHOWN])}{more}")
    for utterance in score.worst(worst):
        lines += [
            "",
            f"{utterance.id}: {utterance.words.errors} word errors, "
            f"WER {100 * utterance.words.rate:.2f} %, CER {100 * utterance.characters.rate:.2f} %",
            f"  target:     {utterance.reference}",
            f"  prediction: {utterance.prediction}",
        ]
    return "\n".join(lines)


@door
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--references", required=True, type=Path, help="folder of true transcripts, ID.txt")
    parser.add_argument(
        "--predictions", required=True, type=Path, help="folder of predicted transcripts, ID.txt"
    )
    parser.add_argument(
        "--baseline", type=Path, help="folder of another system's transcripts, to compare with"
    )
    parser.add_argument(
        "--json", type=Path, help="also write every figure, utterance by utterance, to this file"
    )
    parser.add_argument(
        "--raw", action="store_true", help="compare the texts as they are, without normalising"
    )
    parser.add_argument("--worst", type=int, default=5, metavar="N", help="utterances to show (default 5)")
    arguments = parser.parse_args()
    sys.stdout.reconfigure(errors="backslashreplace")  # a name of a file need not be UTF-8

    score = score_folders(arguments.references, arguments.predictions, arguments.raw)
    results = score.as_dict()
    compared = ""
    if arguments.baseline:
        baseline = score_folders(arguments.references, arguments.baseline, arguments.raw)
        interval = score.interval_against(baseline)
        differing = score.differing_from(baseline)
        compared = f"\n\n{comparison(score, baseline, interval, differing, arguments.baseline)}"
        results["baseline"] = {
            "wer": baseline.words.rate,
            "wer_difference_interval_95": list(interval),
            "utterances_with_other_errors": differing,
            "missing": baseline.missing,
            "unreadable_predictions": baseline.unreadable_predictions,
        }
    print(report(score, max(arguments.worst, 0)) + compared)
    if arguments.json:
        try:
            arguments.json.parent.mkdir(parents=True, exist_ok=True)
            content = json.dumps(results, indent=2, ensure_ascii=False)
            # What is not UTF-8 in a file's name becomes an escape of JSON.
            arguments.json.write_text(content, encoding="utf-8", errors="backslashreplace")
        except OSError as error:
            message = f"{arguments.json}: cannot be written ({error.strerror}); choose another --json"
            raise UserError(message) from None
        print(f"\nwrote {arguments.json}")


if __name__ == "__main__":
    main()
