"""Bounds: how much current the wallboxes may draw at each place, and which limit says so.

Each place of the :mod:`~bridge.core.tree` has a bound for each line and one for the three lines together. What is drawn
there beside the wallboxes comes off; where nobody can tell how much that is, there is less, never more.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import NamedTuple

from bridge.core.config import Config
from bridge.core.decision import GridDecision, GroupDecision, Limit, Unknown
from bridge.core.formulas import fold
from bridge.core.limits import Books
from bridge.core.loads import overdraft
from bridge.core.loads.otherload import flows, is_blind, is_reversed, other_load
from bridge.core.model import Load, PerLine, Present, State
from bridge.core.tree import CONTROLLABLE, FIRST_GROUP, HOUSE, LINES, NOWHERE, PAIRS, SLOTS, Place, Uses, tree, uses
from bridge.core.variables import fresh

_NO_LIMIT = Limit(math.inf, "no limit", "config")
_NO_LOAD: PerLine = (0.0, 0.0, 0.0)
_UNBOUNDED, _UNLIMITED, _CERTAIN = (math.inf,) * SLOTS, (_NO_LIMIT,) * SLOTS, (0.0,) * SLOTS


class Bounds(NamedTuple):
    """The room at each bound in amperes (infinite: none), and the limit it comes from.

    ``doubts``: so much less it may be, until all wallboxes have been read; nobody is offered more out of that.
    """

    rooms: list[float]
    limits: list[Limit]
    doubts: list[float]
    told: frozenset[int]
    """The places (by number) whose room depends on what meters tell."""


class _Said(NamedTuple):
    """What a place's own limits say: amperes on each line, amperes on all lines together; None: nothing."""

    line_a: float | None
    line: Limit
    total_a: float | None
    total: Limit


def bounds(books: Books, grid: GridDecision) -> Bounds:
    """All bounds of a round, numbered as in :mod:`bridge.core.tree`."""
    rooms: list[float] = []
    limits: list[Limit] = []
    doubts: list[float] = []
    told: set[int] = set()
    house_load = _NO_LOAD
    for number, place in enumerate(tree(books.config).places):
        if not (place.by_line or place.by_total):
            rooms += _UNBOUNDED
            limits += _UNLIMITED
            doubts += _CERTAIN
            continue
        said = _house(books, grid, place) if number == HOUSE else _place(books, place)
        load = _NO_LOAD
        if seen := books.state.loads.get(number):
            load = _exceeding(seen, said)
            more = [max(0.0, most - line) for most, line in zip(seen.most, load, strict=True)]
            doubts += [*more, sum(more)]
        else:
            doubts += _CERTAIN
        if number == HOUSE:
            house_load = load
            load = overdraft.added(books.state.overdraft, load, books.now)
        elif number == CONTROLLABLE:
            # What the house feeds in belongs to the cars; what it draws is none of their business here.
            load = (min(0.0, sum(house_load)), 0.0, 0.0) if HOUSE in told else _NO_LOAD
        silent = _silent(books, number)
        # Whether its meters are read, so that its load can be believed to be feed-in.
        if HOUSE in told if number == CONTROLLABLE else place.meters and not silent:
            told.add(number)
        for room, limit in _rooms(said, load, silent):
            rooms.append(room)
            limits.append(limit)
    most = books.config.grid.max_imbalance_a
    for one, other in PAIRS if most is not None else ():
        skew = house_load[one - 1] - house_load[other - 1] if books.config.grid.imbalance_of == "house" else 0.0
        rooms.append((most or 0.0) - max(0.0, skew))
        limits.append(Limit(most or 0.0, f"at most {most:g} A more on L{one} than on L{other}", "config"))
        doubts.append(0.0)
    return Bounds(rooms, limits, doubts, frozenset(told))


def counted(config: Config, found: Bounds, present: Present, lines: tuple[int, ...], single: int | None) -> Uses:
    """Where a wallbox counts that draws on ``lines``, and how often (:func:`bridge.core.tree.uses`)."""
    twice = found.told if found.told and is_blind(present.box, present.device) else NOWHERE
    return uses(config, present.box.id, lines, single, twice)


def groups(config: Config, found: Bounds) -> Mapping[str, GroupDecision]:
    """What the wallboxes of each group may draw now, where its tightest line is, by group id."""
    told: dict[str, GroupDecision] = {}
    for number, group in enumerate(config.groups, FIRST_GROUP):
        room, limit = min(
            ((found.rooms[bound], found.limits[bound]) for bound in range(SLOTS * number, SLOTS * number + len(LINES))),
            key=itemgetter(0),
        )
        told[group.id] = GroupDecision(max(0.0, room), limit.reason, limit.source)
    return told


def _house(books: Books, grid: GridDecision, place: Place) -> _Said:
    """The house connection: its power is decided already, and the reserve comes off."""
    limit = Limit(grid.limit_w, grid.reason, grid.source)
    voltage = books.config.grid.voltage
    reserve_a, reserve = 0.0, books.config.grid.reserve_w
    if reserve is not None:
        value = books.reserve_w(reserve)
        if isinstance(value, Unknown):
            nothing = Limit(0.0, f"the reserve has no value: {value.reason}", "config")
            return _Said(0.0, nothing, None, nothing)
        reserve_a = max(0.0, value) / voltage
    if place.current_a is None:
        return _Said((grid.limit_w / voltage - reserve_a) / len(LINES), limit, None, limit)
    fuse = books.amperes(place.current_a)
    line_a = fuse.amount - reserve_a / len(LINES)
    return _Said(line_a, fuse, grid.limit_w / voltage - reserve_a, limit)


def _place(books: Books, place: Place) -> _Said:
    """Any other place: watts count for all lines together, and by thirds where no current is known."""
    line_a = total_a = None
    line = total = _NO_LIMIT
    if place.current_a is not None:
        line = books.amperes(place.current_a)
        line_a = line.amount
    if place.power_w is not None:
        limit = books.limit(place.power_w, "W")
        if isinstance(limit, Unknown):
            limit = Limit(0.0, f"{place.name}: {place.power_w.text} has no value: {limit.reason}", "config")
        total, total_a = limit, limit.amount / books.config.grid.voltage
        if not place.by_total:
            return _Said(total_a / len(LINES), limit, None, limit)
    return _Said(line_a, line, total_a, total)


def _rooms(said: _Said, load: PerLine, silent: tuple[float, Limit] | None) -> Sequence[tuple[float, Limit]]:
    """The four bounds of a place; ``silent`` replaces what is looser on a line (:func:`_silent`)."""
    found: list[tuple[float, Limit]] = []
    for line in LINES:
        room, limit = math.inf, said.line
        if said.line_a is not None:
            room, limit = said.line_a - load[line - 1], _with_load(said.line, load[line - 1], line)
        if silent:
            room, limit = min((room, limit), silent, key=lambda pair: pair[0])
        found.append((room, limit))
    if said.total_a is None:
        return [*found, (math.inf, said.total)]
    return [*found, (said.total_a - sum(load), said.total)]


def _exceeding(seen: Load, said: _Said) -> PerLine:
    """The other load; where more is drawn than the limits allow, at once with all that no wallbox was seen to draw.

    Wallboxes that do not use what they are offered must not hide it until all of them have been read.
    """
    load = other_load(seen)
    if said.total_a is not None and sum(seen.drawn) > said.total_a:
        over = [True] * len(LINES)
    else:
        over = [said.line_a is not None and line > said.line_a for line in seen.drawn]
    one, two, three = (max(a, b) if cut else a for a, b, cut in zip(load, seen.likely, over, strict=True))
    return one, two, three


def _with_load(limit: Limit, amperes: float, line: int) -> Limit:
    """The same limit, saying what is drawn there besides."""
    if amperes < 0.05:
        return limit
    return Limit(limit.amount, f"{limit.reason}, less {amperes:.1f} A of other load on L{line}", limit.source)


def _silent(books: Books, number: int) -> tuple[float, Limit] | None:
    """The room on each line where a meter of a place tells nothing: at most the fail-safe, whatever it was before."""
    place = tree(books.config).places[number]
    for meter in place.meters:
        known = books.state.device(meter)
        if not fresh(books.config.by_key[fold(meter)], known, books.now):
            trouble = "is not read"
        elif not flows(known.values):
            trouble = "tells no current that can be true"
        elif is_reversed(books.state.load(number)):
            trouble = "counts the wrong way"
        else:
            continue
        least_w = books.config.grid.failsafe_power_w
        what = "grid meter" if number == HOUSE else f"meter of {place.name}"
        limit = Limit(least_w, f"{what} {meter} {trouble}: fail-safe {least_w:g} W", "config")
        return least_w / books.config.grid.voltage / len(LINES), limit
    return None


def alarms(config: Config, state: State) -> Mapping[str, str]:
    """Meters that somebody should turn round, by name of the alarm."""
    return {
        f"{meter}_reversed": f"{meter} seems to count the wrong way: it falls when cars draw more; turn it round"
        for number, place in enumerate(tree(config).places)
        if number in state.loads and is_reversed(state.loads[number])
        for meter in place.meters
    }
