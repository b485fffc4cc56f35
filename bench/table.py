"""Figures with their goals, and how they are printed."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One measured figure. ``goal``: what it shall be at most (``least``: at least); None: only to be known.

    ``note`` says what the figure is made of.
    """

    part: str
    what: str
    figure: float
    unit: str
    goal: float | None = None
    least: bool = False
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the goal is reached; None: there is none."""
        if self.goal is None:
            return None
        return self.figure >= self.goal if self.least else self.figure <= self.goal


def percentile(figures: Sequence[float], share: float) -> float:
    """The value that ``share`` of the figures do not exceed (nearest rank); infinite when there is none."""
    return sorted(figures)[max(0, math.ceil(share * len(figures)) - 1)] if figures else math.inf


def over_rounds(rounds: Iterable[Sequence[float]], share: float) -> float:
    """The median, over the rounds, of each round's percentile: one disturbed round does not decide."""
    return statistics.median(percentile(one, share) for one in rounds)


def text(rows: Sequence[Row]) -> str:
    """The rows as a plain table."""
    lines = [("", "", "figure", "goal", "", "")]
    part = ""
    for row in rows:
        goal = "" if row.goal is None else f"{'>=' if row.least else '<='} {row.goal:g} {row.unit}"
        verdict = "" if row.met is None else "met" if row.met else "MISSED"
        lines.append((row.part if row.part != part else "", row.what, _shown(row), goal, verdict, row.note))
        part = row.part
    widths = [max(len(line[column]) for line in lines) for column in range(5)]
    padded = ("  ".join([*(c.ljust(w) for c, w in zip(line, widths, strict=False)), line[5]]) for line in lines)
    return "\n".join(line.rstrip() for line in padded)


def _shown(row: Row) -> str:
    if isinstance(row.figure, int):
        return f"{row.figure} {row.unit}"
    digits = 3 if row.figure < 1 else 2 if row.figure < 10 else 1
    return f"{row.figure:.{digits}f} {row.unit}" if math.isfinite(row.figure) else "never"
