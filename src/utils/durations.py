"""Lengths of time as people write them: 11h30m, 45m, 90s."""

from __future__ import annotations

import re
from typing import Annotated

from src.utils.build import Limits

PATTERN = re.compile(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?")


def seconds(text: str) -> float:
    """
    >>> seconds("11h30m"), seconds("1.5h"), seconds("90s")
    (41400.0, 5400.0, 90.0)
    """
    hours, minutes, rest = (float(part or 0) for part in PATTERN.fullmatch(text).groups())
    return 3600 * hours + 60 * minutes + rest


Duration = Annotated[
    str,
    Limits(
        "a length of time above 0 such as 11h30m, 45m or 90s",
        lambda v: PATTERN.fullmatch(v) and seconds(v) > 0,
    ),
]
