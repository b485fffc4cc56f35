"""The judge: watches the lines with perfect sight, and writes down where more was drawn or offered than there was.

Nobody can do better than react. So what is drawn is held against the most room there was within one reaction: the
limits of the last ``command_s`` seconds (a write, and the five seconds a car may take to obey by IEC 61851-1, Annex A)
less the smallest other load of the last ``load_s`` (a meter reading more). What is offered needs no car: it is held
against the last ``load_s`` less five seconds.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

OBEYING_S = 5.0
TOLERANCE_A = 0.25
"""Setpoints are rounded to 0.1 A on each of a few boxes."""


class Moment(NamedTuple):
    """A bound at one moment, in amperes: the limit, and what is drawn there beside the wallboxes."""

    at: float
    limit_a: float
    load_a: float


@dataclass
class Bound:
    """One bound, and how it was kept. ``excess_as``: ampere seconds drawn beyond the reaction, ``raw_as`` at all."""

    name: str
    uses: Sequence[tuple[int, int]]
    """(number of the wallbox, how often its current counts)."""
    command_s: float = 7.0
    load_s: float = 10.0
    excess_as: float = 0.0
    raw_as: float = 0.0
    worst_a: float = 0.0
    worst_at: float = -1.0
    offered_a: float = 0.0
    """The most that was offered beyond the room."""
    offered_at: float = -1.0
    history: deque[Moment] = field(default_factory=lambda: deque(maxlen=40))

    def passed(self, moment: Moment, drawn: Sequence[float], offered: Sequence[float], held: float) -> None:
        """A second has passed. ``held``: what boxes draw that cannot be reached, and nobody can lower."""
        self.history.append(moment)
        there = sum([drawn[box] * times for box, times in self.uses])
        over = there - max(0.0, moment.limit_a - moment.load_a)
        if over > TOLERANCE_A:
            self.raw_as += over
            over = min(there - self._room(self.command_s, self.load_s), there - held)
            if over > TOLERANCE_A:
                self.excess_as += over
                if over > self.worst_a:
                    self.worst_a, self.worst_at = over, moment.at
        self.offering(offered, held)

    def limited(self, at: float, limit_a: float) -> None:
        """The limit is another one from now on."""
        if self.history:
            self.history.append(self.history[-1]._replace(at=at, limit_a=limit_a))

    def offering(self, offered: Sequence[float], held: float) -> None:
        """Something else is offered now."""
        if not self.history:
            return
        there, moment = sum([offered[box] * times for box, times in self.uses]), self.history[-1]
        if there - max(0.0, moment.limit_a - moment.load_a) > TOLERANCE_A:
            room = self._room(self.command_s - OBEYING_S, self.load_s - OBEYING_S)
            over = min(there - room, there - held)
            if over > self.offered_a:
                self.offered_a, self.offered_at = over, moment.at

    def _room(self, command_s: float, load_s: float) -> float:
        """The most room there was within one reaction."""
        now = self.history[-1].at
        limit = max(m.limit_a for m in self.history if m.at >= now - command_s)
        load = min(m.load_a for m in self.history if m.at >= now - load_s)
        return max(0.0, limit - load)


@dataclass
class Hunt:
    """Counts setpoints that move although nothing has happened for a while, and those that turn around."""

    calm_s: float = 30.0
    moves: int = 0
    turned: Counter[str] = field(default_factory=Counter)
    """By box: how often it went up after it had gone down, and the other way round."""
    moved: list[tuple[float, str, float]] = field(default_factory=list)
    """(when, where, by how much) without need."""
    _stirred: float = -math.inf
    _last: dict[str, float] = field(default_factory=dict)
    _signs: dict[str, int] = field(default_factory=dict)

    def stirred(self, now: float) -> None:
        """Something has happened that asks for other setpoints."""
        self._stirred = max(now, self._stirred)

    def seen(self, box: str, amperes: float, now: float) -> None:
        """What a box is told."""
        before = self._last.get(box, amperes)
        if abs(amperes - before) < 0.5 and box in self._last:
            return
        self._last[box] = amperes
        sign = 1 if amperes > before else -1
        self.turned[box] += self._signs.get(box, sign) != sign
        self._signs[box] = sign
        if abs(amperes - before) > 1 and now - self._stirred > self.calm_s:
            self.moves += 1
            self.moved.append((now, box, amperes - before))
