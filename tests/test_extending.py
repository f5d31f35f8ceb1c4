"""The code blocks of docs/extending.md run, in order, as one program."""

from __future__ import annotations

import re
from pathlib import Path

PAGE = Path(__file__).resolve().parents[1] / "docs" / "extending.md"


def test_the_page_runs(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LECTERN_CACHE", str(tmp_path / "cache"))
    page = PAGE.read_text(encoding="utf-8")
    blocks = list(re.finditer(r"^```python\n(.*?)^```$", page, re.M | re.S))
    assert len(blocks) >= 4
    namespace: dict = {"__name__": "extending"}
    for block in blocks:
        line = page[: block.start(1)].count("\n")
        # Errors show the line of the page.
        exec(compile("\n" * line + block.group(1), str(PAGE), "exec"), namespace)
