"""An append-only JSON-lines file, one record a line, that stays true when a run is killed and resumed.

A killed run has written past its last checkpoint. What the lost steps wrote is dropped when it is resumed, so
that no curve holds two histories. A line torn by the kill is dropped too.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


class StepLog:
    """Records ``{"step": int, ...}`` in ``path``.

    With ``resumed_step`` it keeps what stands there up to that step, otherwise it begins anew. Every append is
    flushed.
    """

    def __init__(self, path: Path, resumed_step: int | None) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = self.read() if resumed_step is not None and path.exists() else []
        self.rewrite([record for record in kept if record["step"] <= resumed_step])

    def append(self, record: dict[str, Any]) -> None:
        """Adds one record."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record, ensure_ascii=False) + "\n")

    def read(self) -> list[dict[str, Any]]:
        """All records, oldest first; lines that hold none are passed over."""
        records = []
        for line in self.path.read_text(encoding="utf-8", errors="replace").split("\n"):
            try:
                record = json.loads(line)
            except json.JSONDecodeError:
                continue
            if isinstance(record, dict) and isinstance(record.get("step"), int):
                records.append(record)
        return records

    def rewrite(self, records: list[dict[str, Any]]) -> None:
        """Replaces the file in one move."""
        temporary = self.path.with_suffix(".tmp")
        temporary.write_text(
            "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records), encoding="utf-8"
        )
        os.replace(temporary, self.path)
