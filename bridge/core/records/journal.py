"""The journal as the core knows it: entries that wait until they are on disk, and what is being watched meanwhile.

What is written when is in :mod:`bridge.core.records.evidence`; how it gets to the disk, and what keeps it from being
changed there, is the business of the storage edge. Tuples rather than dataclasses: each round with a command changes
some of them, and that must take microseconds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime, tzinfo
from types import MappingProxyType
from typing import NamedTuple

OUTBOX = 2000
"""So many entries wait for a disk that fails; what comes beyond is counted and told when there is room again."""
ROUTINE = frozenset({"trace", "setpoints"})
ROUTINE_OUTBOX = 1500
"""Routine leaves the rest of the outbox to commands and what came of them."""

_NEVER = float("-inf")


class Entry(NamedTuple):
    """One entry: what, when (Unix seconds, and the zone of the site), and the facts, ready for JSON."""

    kind: str
    utc: float
    zone: tzinfo | None
    facts: Mapping[str, object]


class Tally(NamedTuple):
    """Commands of one source that are counted instead of written one by one.

    ``repeats``: each of them was the same as the one before and changed nothing. ``lowest_w`` and ``highest_w`` are the
    limits of the house connection that came of them; ``facts`` are those of the last one.
    """

    since: float
    first: int
    number: int
    repeats: bool
    lowest_w: float
    highest_w: float
    facts: Mapping[str, object]


class Sender(NamedTuple):
    """A source of commands: what it said last, and how many more may be written in full (``tokens`` at ``mono``)."""

    said: object
    tokens: float
    mono: float
    tally: Tally | None = None


class Minute(NamedTuple):
    """What was measured since ``since`` (mono): sums and maxima in watts over so many samples."""

    since: float
    samples: int = 0
    controllable_w: float = 0.0
    controllable_max_w: float = 0.0
    attributed_w: float = 0.0
    grid_samples: int = 0
    grid_w: float = 0.0
    grid_max_w: float = -math.inf
    estimated: bool = False


class Watch(NamedTuple):
    """An open grid event: the command that is being followed (``since`` mono, its ``receipt``) and the running minute.

    ``effective``: the draw was seen inside the limit; ``late``: so many of the deadlines passed before that. ``told``
    are the setpoints written last: (wanted, confirmed) in amperes by wallbox.
    """

    since: float
    minute: Minute
    receipt: int | None = None
    looked: bool = False
    effective: bool = False
    late: int = 0
    told: Mapping[str, tuple[float, float | None]] = MappingProxyType({})

    def following(self, receipt: int | None, mono: float) -> Watch:
        """The same event, now following a newer command."""
        return self._replace(since=mono, receipt=receipt, looked=False, effective=False, late=0)


class Journal(NamedTuple):
    """Entries that are not on disk yet, and what later entries depend on.

    Entries are numbered from 1 since the start; ``outbox`` holds the last ones up to number ``last``, and those up to
    ``due`` shall be written at once. ``lost`` counts, by kind, what found no room. ``head`` is "number hash" of the
    newest entry on disk, ``error`` why the disk does not take them. ``event`` names the open grid event.
    """

    outbox: tuple[Entry, ...] = ()
    last: int = 0
    due: int = 0
    lost: Mapping[str, int] = MappingProxyType({})
    head: str = ""
    error: str = ""
    looked: float = _NEVER
    limits: Mapping[str, float] = MappingProxyType({})
    event: str = ""
    watch: Watch | None = None
    failsafe: bool = False
    senders: Mapping[str, Sender] = MappingProxyType({})

    @property
    def first(self) -> int:
        """The number of the oldest entry in the outbox."""
        return self.last - len(self.outbox) + 1

    @property
    def begun(self) -> float | None:
        """When the open grid event began (Unix seconds); None when there is none, or its name does not tell."""
        try:
            return datetime.fromisoformat(self.event).timestamp()
        except (ValueError, OverflowError):
            return None

    def noting(self, kind: str, utc: float, zone: tzinfo | None, facts: Mapping[str, object]) -> Journal:
        """The journal with one more entry, which belongs to the open grid event if there is one."""
        journal = self
        if journal.lost and len(journal.outbox) < ROUTINE_OUTBOX:
            dropped = Entry("dropped", utc, zone, {"why": "the disk did not take them", "kinds": dict(journal.lost)})
            journal = journal._replace(lost={})._with(dropped)
        if len(journal.outbox) >= (ROUTINE_OUTBOX if kind in ROUTINE else OUTBOX):
            return journal._replace(lost={**journal.lost, kind: journal.lost.get(kind, 0) + 1})
        return journal._with(Entry(kind, utc, zone, {**facts, "event": self.event} if self.event else facts))

    def _with(self, entry: Entry) -> Journal:
        # Setpoints ride along with the next entry: each visit to the disk wears the card.
        number = self.last + 1
        due = self.due if entry.kind == "setpoints" else number
        return self._replace(outbox=(*self.outbox, entry), last=number, due=due)

    def kept(self, through: int, head: str, error: str) -> Journal:
        """The journal after storage wrote all entries up to number ``through``, or failed to write the others."""
        waiting = self.outbox[max(0, through - self.first + 1) :]
        return self._replace(outbox=waiting, head=head or self.head, error=error)


def instant(utc: float) -> str:
    """Unix seconds as ISO 8601 in UTC with milliseconds: ``2026-11-22T12:00:00.000Z``."""
    return datetime.fromtimestamp(utc, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def figure(value: float | None, decimals: int = 1) -> float | int | None:
    """A number as the journal has it: whole ones without ``.0``, None for what is not finite."""
    if value is None or not math.isfinite(value):
        return None
    rounded = round(value, decimals) + 0.0
    return int(rounded) if rounded.is_integer() else rounded
