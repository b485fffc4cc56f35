"""Switching between one and three phases: who shall, and when.

A car that charges on three lines needs three times its minimum, 4.14 kW; on one line 1.38 kW do. A wallbox that may
goes down to one phase when that lets more cars charge than pausing them in turns, and up again when everybody can have
the minimum on all lines for a while. It is never switched under load: first it is paused, and only when it has
confirmed that and nothing flows any more, it is told; it charges on when it has confirmed that, too.

Contactors wear out, and cars do not like it: what comes and goes by itself has to last, and between two commands there
is the time that the model wants. Only what the grid side has reduced is followed at once, because the alternative is a
pause all the same.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from bridge.core import bounds, limits, setpoints, sharing
from bridge.core.bounds import Bounds
from bridge.core.config import Config, Switching, WallboxConfig
from bridge.core.decision import Limit
from bridge.core.limits import Books
from bridge.core.loads import phases
from bridge.core.loads.otherload import line_currents
from bridge.core.loads.phase import Phases
from bridge.core.model import Device, Now, Roll, State
from bridge.core.roll import WANTS_TO_CHARGE, unready
from bridge.core.sharing import Share, Wish
from bridge.core.variables import fresh

DOWN_S = 120.0
"""So long three minima must not fit before a wallbox goes down to one phase, if not the grid side is behind it."""
UP_S = 300.0
"""So long they must fit before it goes up again."""
MARGIN_A = 1.0
"""So much more than the minimum must fit then, on each line."""
PATIENCE_S = 60.0
"""A wallbox that is not paused after so long, or tells nothing so long after it should have settled, has failed."""

_UNKNOWN = Phases()


class Goal(NamedTuple):
    """A better number of phases, why, and how long it has to be better."""

    phases: int
    reason: str
    lasting_s: float = 0.0


def followed(config: Config, state: State, roll: Roll, revision: int, now: Now) -> State:
    """The state with who is to be switched, once a round; ``revision`` is that of the first snapshot to show it."""
    boxes = [box for box in config.wallboxes if box.switches]
    if not boxes:
        return state
    goals = _goals(config, state, roll, boxes, now)
    changed: dict[str, Phases] = {}
    for box in boxes:
        before = state.phases.get(box.id, _UNKNOWN)
        after = _stepped(config, state, box, before, goals.get(box.id), revision, now)
        if after is not before:
            changed[box.id] = after
            if after.revision is not None:
                state = phases.forgotten(state, box.id)
    return state.but(phases={**state.phases, **changed}) if changed else state


def _stepped(
    config: Config, state: State, box: WallboxConfig, known: Phases, goal: Goal | None, revision: int, now: Now
) -> Phases:
    """What is known of a wallbox after a round."""
    able = box.switches or Switching()
    if known.revision is not None:
        if now.mono - known.switched_mono <= able.settle_s + PATIENCE_S + box.patience_s:
            return known
        return Phases(switched_mono=known.switched_mono, failed=True)
    if known.changing:
        if goal and goal.phases != known.wanted:
            return replace(known, wanted=known.confirmed, since=None)
        if _is_still(config, state, box, now):
            return replace(known, confirmed=None, revision=revision, switched_mono=now.mono, since=None)
        if now.mono - (known.since or now.mono) <= PATIENCE_S + box.patience_s:
            return known
        return replace(known, wanted=known.confirmed, since=None, failed=True)
    if goal is None or goal.phases == known.confirmed or known.failed:
        return known if known.since is None else replace(known, since=None)
    since = now.mono if known.since is None else known.since
    if now.mono - since < goal.lasting_s or now.mono - known.switched_mono < able.min_interval_s:
        return known if since == known.since else replace(known, since=since)
    return replace(known, wanted=goal.phases, reason=goal.reason, since=now.mono)


def _is_still(config: Config, state: State, box: WallboxConfig, now: Now) -> bool:
    """Whether a wallbox is paused for certain, and a reading made after that shows that nothing flows."""
    device, offer = state.device(box.id), state.offer(box.id)
    if not _is_known(box, device, now) or offer.ceiling_a != 0.0 or device.mono < offer.lowered[0]:
        return False
    drawn = line_currents(device.values, box.lines, config.grid.voltage)
    if drawn is None:
        return device.values.get("state") not in ("C", "D")
    return sum(drawn) < phases.FLOWING_A


def _is_known(box: WallboxConfig, device: Device, now: Now) -> bool:
    """Whether a wallbox answers and says what its car does."""
    known = device.values.get("state")
    return device.online and fresh(box, device, now) and (known == "A" or known in WANTS_TO_CHARGE)


# ------------------------------------------------------------------------------------------ what would be better


def _goals(config: Config, state: State, roll: Roll, boxes: Sequence[WallboxConfig], now: Now) -> Mapping[str, Goal]:
    """What is better for each of these wallboxes; those are missing that shall stay as they are."""
    goals: dict[str, Goal] = {}
    charging: list[WallboxConfig] = []
    for box in boxes:
        device = state.device(box.id)
        if not _is_known(box, device, now):
            continue
        if box.phase_switching != "auto":
            goals[box.id] = Goal(int(box.phase_switching), "as set up")
        elif device.values["state"] == "A":
            goals[box.id] = Goal(3, "no car connected", UP_S)
        else:
            charging.append(box)
    if charging:
        goals |= _by_room(config, state, roll, {box.id: box for box in charging}, now)
        goals |= _by_surplus(config, state, charging)
    for box in charging:
        # Nobody is paused only to make sure of what is reckoned with anyway.
        if box.id in goals and goals[box.id].phases == 3 and state.phases.get(box.id, _UNKNOWN).wanted is None:
            del goals[box.id]
    return goals


def _by_surplus(config: Config, state: State, boxes: Sequence[WallboxConfig]) -> Mapping[str, Goal]:
    """Who charges with a surplus that is enough for one line only."""
    goals: dict[str, Goal] = {}
    for box in boxes:
        offered_w = state.surplus.offered_w.get(box.id) if state.surplus else None
        if offered_w is None:
            continue
        least_w = config.grid.voltage * box.least_a
        single = state.phases.get(box.id, _UNKNOWN).wanted == 1
        enough_w = len(box.lines) * (least_w + single * MARGIN_A * config.grid.voltage)
        if least_w <= offered_w < enough_w:
            reason = f"a surplus of {round(offered_w, -2):.0f} W is less than {len(box.lines)} x {box.least_a:g} A"
            goals[box.id] = Goal(1, reason, DOWN_S)
    return goals


def _by_room(
    config: Config, state: State, roll: Roll, boxes: Mapping[str, WallboxConfig], now: Now
) -> Mapping[str, Goal]:
    """Who lets more cars charge by going down to one phase; who could charge on three beside all others.

    Two worlds are compared: all on three, and those on one who keep others, or themselves, from charging. A car is not
    slowed down for one of lower priority.
    """
    assert state.grid is not None
    books = Books(config, state, now)
    found = bounds.bounds(books, state.grid)
    rooms = _rooms(books, roll, found)
    wide = _asking(books, roll, found, boxes, ())
    shares = sharing.share([one.wish for one in wide], rooms)
    starving = [one for one in wide if not one.wish.idle and shares[one.wish.id].amount_a <= 0]
    narrow: dict[str, _Asks] = {}
    for one in wide:
        if one.wish.id in boxes and one.lines > 1 and (other := _kept_by(one.wish, starving, shares)):
            narrow[one.wish.id] = other
    goals = {one.wish.id: Goal(3, "there is room for it", UP_S) for one in wide if one.wish.id in boxes.keys() - narrow}
    if not narrow:
        return goals
    mixed = [one.wish for one in _asking(books, roll, found, boxes, narrow)]
    if _served(mixed, sharing.share(mixed, rooms)) > _served([one.wish for one in wide], shares):
        lasting_s = 0.0 if state.grid.state in ("limited", "failsafe") else DOWN_S
        for id, other in narrow.items():
            bound = shares[other.wish.id].bound
            limit = other.cap if bound is None else found.limits[bound]
            whom = "" if other.wish.id == id else f" for {other.wish.id}, too"
            goals[id] = Goal(1, f"{other.lines} x {other.wish.min_a:g} A do not fit{whom}: {limit.reason}", lasting_s)
    return goals


class _Asks(NamedTuple):
    """A wallbox that would charge, on how many lines, and its own limit."""

    wish: Wish
    lines: int
    cap: Limit


def _asking(
    books: Books, roll: Roll, found: Bounds, boxes: Mapping[str, WallboxConfig], narrow: Container[str]
) -> Sequence[_Asks]:
    """Everybody who would charge if those of ``boxes`` that are ``narrow`` were on one phase, the others on three.

    Who is on one phase now needs a margin to be on three.
    """
    asking = []
    for present in roll.present:
        box, device = present.box, present.device
        if not device.online or unready(device):
            continue
        lines, single = setpoints.lines_of(books.state, present)
        known = books.state.phases.get(box.id, _UNKNOWN)
        more_a = 0.0
        if box.id in narrow:
            lines, single = box.lines[:1], None
        elif box.id in boxes and (known.wanted == 1 or len(phases.as_switched(books.state, box).lines) == 1):
            lines, single, more_a = box.lines, box.lines[0], MARGIN_A
        cap = limits.wallbox(books, box, device, len(lines))
        wish = setpoints.wish(books, present, cap, bounds.counted(books.config, found, present, lines, single))
        asking.append(_Asks(wish._replace(min_a=wish.min_a + more_a), len(lines), cap))
    return asking


def _rooms(books: Books, roll: Roll, found: Bounds) -> Sequence[float]:
    """The room there is for those who would charge: without what unreachable wallboxes may be drawing."""
    rooms = list(found.rooms)
    for present in roll.present:
        if not present.device.online:
            for bound, amperes in setpoints.booked(books, present):
                rooms[bound] -= amperes
    return rooms


def _kept_by(wish: Wish, starving: Sequence[_Asks], shares: Mapping[str, Share]) -> _Asks | None:
    """One of those who cannot charge whom it would help if this wallbox took less."""
    there = [bound for bound, _ in wish.uses]
    for other in starving:
        if other.wish.id == wish.id:
            return other
    return next((o for o in starving if shares[o.wish.id].bound in there and wish.priority <= o.wish.priority), None)


def _served(wishes: Sequence[Wish], shares: Mapping[str, Share]) -> int:
    """How many cars can charge that would."""
    return sum(not wish.idle and shares[wish.id].amount_a > 0 for wish in wishes)
