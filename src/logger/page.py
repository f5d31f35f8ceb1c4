"""The page of samples: one HTML file without scripts or outside links; all text in it is escaped."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from itertools import groupby
from typing import Any

import jiwer

STYLE = """
:root { color-scheme: light dark; --ink: #1f2328; --soft: #7d8590; --line: #d8dee4; --paper: #fff; --card:
#f6f8fa;
        --add: #1a7f37; --change: #bc4c00; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --line: #30363d; --paper: #0d1117; --card:
#161b22;
        --add: #3fb950; --change: #f0883e; } }
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 76rem; padding: 2rem 1.25rem 4rem; background: var(--paper); color:
var(--ink);
       font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif }
h1 { font-size: 1.5rem; margin: 0 0 1rem }
h2 { font-size: 1.1rem; margin: 2.5rem 0 .5rem; padding-bottom: .3rem; border-bottom: 1px solid var(--line) }
h3 { font-size: .85rem; font-weight: 600; color: var(--soft); margin: 1rem 0 .35rem }
svg { max-width: 100%; height: auto }
.wide { overflow-x: auto }
table { width: 100%; border-collapse: collapse; background: var(--card); border-radius: .6rem; overflow:
hidden } th { text-align: left; font-size: .75rem; font-weight: 600; color: var(--soft) }
th, td { padding: .5rem .75rem; vertical-align: top }
tr + tr td { border-top: 1px solid var(--line) }
td.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }
td.id { color: var(--soft); font-size: .8rem; overflow-wrap: anywhere; max-width: 12rem }
ins { color: var(--add); text-decoration: none; font-weight: 600 }
mark { background: none; color: var(--change); font-weight: 600 }
del { color: var(--change) }
audio { height: 2rem; width: 13rem; display: block }
img { max-width: 100%; border-radius: .3rem; display: block }
td img { width: 13rem; margin-top: .4rem }
.gallery { display: flex; margin-top: 1rem; flex-wrap: wrap; gap: 1rem }
figure { margin: 0; max-width: 36rem }
figcaption { font-size: .8rem; color: var(--soft) }
"""


def marked_prediction(target: str, prediction: str) -> str:
    """The prediction as HTML: substituted words in <mark>, inserted in <ins>, missing in <del>.

    >>> marked_prediction("the cat sat", "the bat sat down")
    'the <mark>bat</mark> sat <ins>down</ins>'
    """
    words, hypothesis = target.split(), prediction.split()
    if not words:
        return f"<ins>{escape(prediction)}</ins>" if hypothesis else ""
    tags = {"substitute": "mark", "insert": "ins", "delete": "del"}
    parts = []
    for chunk in jiwer.process_words(target, prediction).alignments[0]:
        if chunk.type == "delete":
            text = " ".join(words[chunk.ref_start_idx : chunk.ref_end_idx])
        else:
            text = " ".join(hypothesis[chunk.hyp_start_idx : chunk.hyp_end_idx])
        tag = tags.get(chunk.type)
        parts.append(f"<{tag}>{escape(text)}</{tag}>" if tag else escape(text))
    return " ".join(parts)


def _media(entry: dict[str, Any]) -> str:
    """Player and picture of a row or of a gallery entry, as far as it has them."""
    audio, image = entry.get("audio"), entry.get("image")
    player = f'<audio controls preload="none" src="{escape(audio)}"></audio>' if audio else ""
    if not image:
        return player
    return player + f'<a href="{escape(image)}"><img loading="lazy" alt="" src="{escape(image)}"></a>'


def _table(rows: Sequence[dict[str, Any]]) -> str:
    def line(row: dict[str, Any]) -> str:
        return (
            f'<tr><td class="id">{escape(row["utterance_id"])}</td><td>{escape(row["target"])}</td>'
            f"<td>{marked_prediction(row['target'], row['prediction'])}</td>"
            f'<td class="number">{row["cer"]:.1%}</td><td class="number">{row["wer"]:.1%}</td>'
            f"<td>{_media(row)}</td></tr>"
        )

    titles = "".join(f"<th>{title}</th>" for title in ("id", "target", "prediction", "CER", "WER", "audio"))
    return f'<div class="wide"><table><tr>{titles}</tr>{"".join(map(line, rows))}</table></div>'


def _gallery(entries: Sequence[dict[str, Any]]) -> str:
    """Recordings and pictures; those of one name belong together."""
    cards: dict[str, dict[str, Any]] = {}
    for entry in entries:
        cards.setdefault(entry["name"], {}).update(entry)
    figures = (
        f"<figure>{_media(card)}<figcaption>{escape(name)}</figcaption></figure>"
        for name, card in cards.items()
    )
    return f'<div class="gallery">{"".join(figures)}</div>'


def render(title: str, chart: str, entries: Sequence[dict[str, Any]]) -> str:
    """The whole page, newest step first.

    Each entry has ``step`` and ``name`` and either ``rows`` (samples) or ``audio``/``image`` (file names
    beside the page); ``chart`` is inline SVG.
    """
    sections = []
    for step, group in groupby(
        sorted(entries, key=lambda entry: -entry["step"]), key=lambda entry: entry["step"]
    ):
        group = list(group)
        tables = "".join(f"<h3>{escape(e['name'])}</h3>{_table(e['rows'])}" for e in group if "rows" in e)
        gallery = _gallery([entry for entry in group if "rows" not in entry])
        sections.append(f'<section id="step-{step}"><h2>step {step}</h2>{tables}{gallery}</section>')
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n"
        f"<body><h1>{escape(title)}</h1>{chart}\n" + "\n".join(sections) + "</body></html>\n"
    )
