"""Setpoints: what each wallbox shall offer its car, and why.

Limits and bounds say what may be drawn, :mod:`~bridge.core.sharing` who gets how much of it. Here every wallbox comes
to its wish, whoever cannot follow stays booked with what it may be drawing, and each result gets its reason.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from bridge.core import limits, sharing
from bridge.core.bounds import Bounds, counted
from bridge.core.decision import Limit, Setpoint
from bridge.core.limits import Books
from bridge.core.loads import cars, phases
from bridge.core.loads.otherload import is_blind, line_currents
from bridge.core.model import Now, Present, Roll, State
from bridge.core.offers import next_due
from bridge.core.roll import unready
from bridge.core.sharing import HAD_ITS_TURN, SERVED, WAITING, Held, Share, Wish
from bridge.core.tree import SLOTS, Uses, tree, uses

PAUSE_S = 60.0
"""A pause that nobody ordered lasts at least so long."""

LATE_S = 2.0
"""A box that has not confirmed a lower setpoint after so long does not answer for the moment."""


class _Asks(NamedTuple):
    """A reachable wallbox with its wish, what it holds, and what limits it alone."""

    present: Present
    wish: Wish
    held: Held
    cap: Limit


def decided(books: Books, roll: Roll, bounds: Bounds) -> Mapping[str, Setpoint]:
    """A setpoint for every wallbox. Unreachable ones keep what they were offered, booked against the others."""
    rooms = list(bounds.rooms)
    setpoints = dict(roll.idle)
    asking: list[_Asks] = []
    leaving: list[_Asks] = []
    resting: list[_Asks] = []
    keeping: list[Wish] = []
    for present in roll.present:
        box, device, offer, _ = present
        lines, single = lines_of(books.state, present)
        cap = limits.wallbox(books, box, device, len(lines))
        used = counted(books.config, bounds, present, lines, single)
        if not device.online:
            setpoints[box.id] = _unreachable(present, cap, used, bounds.rooms)
            for bound, amperes in booked(books, present):
                rooms[bound] -= amperes
            continue
        ceiling = _ceiling(books, present)
        held = Held(offer.confirmed_a or 0.0, ceiling, offer.sent_a or 0.0)
        asks = _Asks(present, wish(books, present, cap, used), held, cap)
        why, rests = _why_not(present, cap), _rests(books, present)
        if (holds := phases.hold(books.state, box)) and not unready(device):
            why = holds
            keeping.append(_after_switch(books, bounds, present))
        if not why and not rests:
            asking.append(asks)
            continue
        source = cap.source if cap.amount < box.least_a and not unready(device) else "wallbox"
        setpoints[box.id] = Setpoint(0.0, cap.amount, 0.0, why or rests, source)
        if ceiling > 0:
            leaving.append(asks)
        if not why:
            resting.append(asks)
    shares = _shares(asking, keeping, rooms)
    sent = _sent(asking, leaving, keeping, shares, rooms, bounds.doubts, books.now)
    told = _Telling(bounds, [asks.wish for asks in asking])
    for asks in asking:
        setpoints[asks.wish.id] = told.explained(asks, shares[asks.wish.id], sent[asks.wish.id])
        for bound, times in asks.wish.uses if resting else ():
            rooms[bound] -= times * shares[asks.wish.id].amount_a
    for asks in resting:
        # Could it charge if it did not have to rest? Else it is still the limit that pauses it.
        if (full := sharing.first_full(asks.wish, rooms)) is not None:
            setpoints[asks.wish.id] = told.explained(asks, Share(0.0, full), 0.0)
    return phases.told(books.config, books.state, setpoints)


def lines_of(state: State, present: Present) -> tuple[tuple[int, ...], int | None]:
    """The house lines on which a wallbox counts, and the one to which all may be confined as far as anybody knows."""
    box, device, _, car = present
    if car and car.lines:
        return (car.lines if device.online else box.lines), None
    lines = phases.as_switched(state, box).lines
    return lines, lines[0]


def _after_switch(books: Books, bounds: Bounds, present: Present) -> Wish:
    """What a wallbox will want that is paused to be switched: nobody shall take its place meanwhile."""
    box = present.box
    lines = phases.lines_wanted(books.state, box)
    cap = limits.wallbox(books, box, present.device, len(lines))
    return wish(books, present, cap, counted(books.config, bounds, present, lines, None))


def booked(books: Books, present: Present) -> Sequence[tuple[int, float]]:
    """What a wallbox may be drawing at each bound, in amperes."""
    lines, single = lines_of(books.state, present)
    ceiling = _ceiling(books, present)
    # What it measured is old; but what it draws, meters count with the house: that is the second time already.
    return [(bound, times * ceiling) for bound, times in uses(books.config, present.box.id, lines, single)]


def _ceiling(books: Books, present: Present) -> float:
    """What a wallbox may be drawing in amperes per line. Where nothing is known of it, that is all it can."""
    box, device, offer, car = present
    ceiling_a = offer.ceiling_a
    lately_a = offer.lately_a(books.now.mono)
    if ceiling_a is None or lately_a is None:
        return box.capability.max_a
    if lately_a == ceiling_a:
        return ceiling_a
    # A car may take seconds to obey: what it still draws is nobody else's.
    places, voltage = tree(books.config), books.config.grid.voltage
    metered = any(places.places[number].meters for number in places.ways[box.id])
    drawn = line_currents(device.values, box.lines, voltage)
    if drawn is None:
        return lately_a if metered and device.values.get("state") == "C" else ceiling_a
    most_a = cars.may_draw_a(box, car, device, offer, voltage) if metered else max(drawn)
    return max(ceiling_a, min(lately_a, most_a))


def wish(books: Books, present: Present, cap: Limit, used: Uses) -> Wish:
    """What a wallbox would like to have, whether it may just now or not."""
    box, _, offer, car = present
    slot_s, mono = books.config.grid.slot_s, books.now.mono
    holding = (offer.ceiling_a or 0.0) >= box.least_a
    if phases.keeps_its_turn(books.state, box, books.now):
        turn = (SERVED, offer.resumed_mono)
    elif not holding:
        turn = (WAITING, max(offer.paused_mono, car.since if car else mono))
    elif mono - offer.resumed_mono < slot_s:
        turn = (SERVED, offer.resumed_mono)
    else:
        turn = (HAD_ITS_TURN, -offer.resumed_mono)
    return Wish(
        box.id,
        used,
        box.least_a,
        min(cap.amount, cars.wanted_a(car, offer, mono)),
        cap.amount,
        box.capability.step_a,
        box.priority,
        box.weight,
        turn,
        cars.is_idle(car, mono, slot_s),
    )


def _shares(asking: Sequence[_Asks], keeping: Sequence[Wish], rooms: Sequence[float]) -> Mapping[str, Share]:
    """The shares of those that ask, beside what is kept for those that are being switched."""
    shares = sharing.share([*(asks.wish for asks in asking), *keeping], rooms)
    return {asks.wish.id: shares[asks.wish.id] for asks in asking}


def _sent(
    asking: Sequence[_Asks],
    leaving: Sequence[_Asks],
    keeping: Sequence[Wish],
    shares: Mapping[str, Share],
    rooms: Sequence[float],
    doubts: Sequence[float],
    now: Now,
) -> Mapping[str, float]:
    """The currents that may be sent now. Room that a late box does not give up yet, the others make at once."""
    late = [asks for asks in (*asking, *leaving) if _is_late(asks, _target(shares, asks), now)]
    if not late:
        wishes = [asks.wish for asks in (*asking, *leaving)]
        held = {asks.wish.id: asks.held for asks in (*asking, *leaving)}
        targets = {id: share.amount_a for id, share in shares.items()}
        return sharing.release(targets, wishes, held, rooms, doubts)
    left = list(rooms)
    for asks in late:
        for bound, times in asks.wish.uses:
            left[bound] -= times * asks.held.ceiling_a
    quick = [asks for asks in asking if asks not in late]
    # With others out of the way it could be more for somebody: not before they are back.
    again = {id: min(share.amount_a, shares[id].amount_a) for id, share in _shares(quick, keeping, left).items()}
    present = [*quick, *(asks for asks in leaving if asks not in late)]
    held = {asks.wish.id: asks.held for asks in present}
    sent = sharing.release(again, [asks.wish for asks in present], held, left, doubts)
    return {**sent, **{asks.wish.id: _target(shares, asks) for asks in late}}


def _target(shares: Mapping[str, Share], asks: _Asks) -> float:
    share = shares.get(asks.wish.id)
    return share.amount_a if share else 0.0


def _is_late(asks: _Asks, target: float, now: Now) -> bool:
    """Whether a box that shall give something up may not be written yet, or does not answer."""
    box, _, offer, _ = asks.present
    if offer.ceiling_a is not None and offer.ceiling_a <= target:
        return False
    due = offer.due_mono if offer.sent_a == target else next_due(box, offer, now.mono)
    return due > now.mono or now.mono - due > LATE_S


def _unreachable(present: Present, cap: Limit, used: Uses, rooms: Sequence[float]) -> Setpoint:
    """What an unreachable box shall find when it is back: what it last was offered, where the limits still allow it."""
    box, device, offer, _ = present
    if offer.ceiling_a is None:
        reason = f"not reachable ({device.reason}): {box.capability.max_a:g} A stay booked for it"
        return Setpoint(0.0, cap.amount, 0.0, reason, "wallbox")
    allowed = min(cap.amount, sharing.tightest(used, rooms))
    kept = min(offer.ceiling_a, sharing.floor_to_step(allowed, box.capability.step_a))
    kept = kept if kept >= box.least_a else 0.0
    reason = f"not reachable ({device.reason}): {offer.ceiling_a:g} A stay booked for it"
    return Setpoint(kept, cap.amount, kept, reason, "wallbox")


def _why_not(present: Present, cap: Limit) -> str:
    """Why a reachable box gets nothing, whatever room there is; empty when it takes part in the sharing."""
    if why := unready(present.device):
        return why
    if cap.amount < present.box.least_a:
        return f"paused: {cap.reason}, below the minimum of {present.box.least_a:g} A"
    return ""


def _rests(books: Books, present: Present) -> str:
    """Why a box that could charge has to wait for a while: contactors and cars are spared; empty when it need not.

    Where nothing is set up, it is what comes and goes by itself that they are spared; who sets a variable is not kept
    waiting.
    """
    box, _, offer, car = present
    if car is None or car.since > offer.paused_mono:
        return ""
    pause_s = box.min_pause_s
    if pause_s is None:
        ended = max(books.state.set_mono, phases.switched_mono(books.state, box))
        pause_s = 0.0 if ended >= offer.paused_mono else PAUSE_S
    return f"paused for at least {pause_s:g} s" if books.now.mono - offer.paused_mono < pause_s else ""


class _Telling:
    """Puts the reason to each share; knows how many share each bound."""

    def __init__(self, bounds: Bounds, wishes: Sequence[Wish]) -> None:
        self._bounds = bounds
        self._sharers = [0] * len(bounds.rooms)
        for wish in wishes:
            for bound, _ in wish.uses:
                self._sharers[bound] += 1
        self._shared: dict[int, Limit] = {}

    def explained(self, asks: _Asks, share: Share, now_a: float) -> Setpoint:
        """A setpoint with the reason that binds it."""
        wish, cap, target = asks.wish, asks.cap, share.amount_a
        binding = cap if share.bound is None else self._limit(share.bound, asks)
        if target <= 0:
            reason = f"paused: {binding.reason}: less than the minimum of {wish.min_a:g} A is left"
            return Setpoint(now_a, cap.amount, target, reason, binding.source)
        if now_a < target:
            return Setpoint(now_a, cap.amount, target, "waiting until the room for more is confirmed", "wallbox")
        if target + wish.step_a > cap.amount:
            binding = cap
        return Setpoint(now_a, cap.amount, target, binding.reason, binding.source)

    def _limit(self, bound: int, asks: _Asks) -> Limit:
        if bound not in self._shared:
            limit = self._bounds.limits[bound]
            sharers = self._sharers[bound]
            shared = f", shared by {sharers} wallboxes" if sharers > 1 else ""
            self._shared[bound] = Limit(limit.amount, limit.reason + shared, limit.source)
        told = self._shared[bound]
        if bound // SLOTS in self._bounds.told and is_blind(asks.present.box, asks.present.device):
            reason = f"{told.reason}; as much again is kept free, for this wallbox measures nothing"
            return Limit(told.amount, reason, told.source)
        return told
