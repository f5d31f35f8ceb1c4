"""Levenshtein distance as Wagner and Fischer (1974) wrote it down: one cell at a time, slow and plain."""

from __future__ import annotations

from collections.abc import Sequence


def edit_distance(reference: Sequence, hypothesis: Sequence) -> int:
    """Fewest substitutions, deletions and insertions that turn one sequence into the other."""
    table = [[0] * (len(hypothesis) + 1) for _ in range(len(reference) + 1)]
    for i in range(len(reference) + 1):
        for j in range(len(hypothesis) + 1):
            if i == 0 or j == 0:
                table[i][j] = i + j
            else:
                table[i][j] = min(
                    table[i - 1][j - 1] + (reference[i - 1] != hypothesis[j - 1]),
                    table[i - 1][j] + 1,
                    table[i][j - 1] + 1,
                )
    return table[-1][-1]
