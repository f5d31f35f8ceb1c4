"""What profiles look like, of training and of inference: columns on the terminal, profile.json and profile.png."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from src.utils.files import check_output, written_whole
from src.utils.plots import bars_figure

FILES = "profile.json", "profile.png"


def check_folder(folder: Path) -> None:
    """Raises ``UserError`` where no profile could be written, before there is one."""
    for name in FILES:
        check_output(folder / name)


def columns(heads: Sequence[str], rows: Mapping[str, Sequence[str]], width: int = 11) -> list[str]:
    """A table whose first column are the rows' names.

    >>> for line in columns(["stage", "ms"], {"search": ["1.5"], "text": ["10.0"]}):
    ...     print(line.replace(" ", "."))
    stage....................................ms
    search..................................1.5
    text...................................10.0
    """
    table = {heads[0]: heads[1:], **rows}
    return [f"{name:32}" + "".join(f"{cell:>{width}}" for cell in cells) for name, cells in table.items()]


def write_profile(
    folder: Path, result: Mapping[str, Any], panels: Mapping[str, Mapping[str, float]], title: str
) -> str:
    """Writes the two files, the picture with a panel of bars for each of ``panels``; returns a line that names them."""
    data, picture = (folder / name for name in FILES)
    with written_whole(data) as unfinished:
        unfinished.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    with written_whole(picture) as unfinished:
        bars_figure(panels, title).savefig(unfinished, format="png", dpi=110)
    return f"files: {data} and {picture}"
