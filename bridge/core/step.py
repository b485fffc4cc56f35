"""One step of the house: an event changes what we know, what we know decides.

The hub calls :func:`run` once a round; :func:`apply` and :func:`decide` are what it is made of. All pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from bridge.core import counters, inputs, limits, otherload, receipts, sharing, variables
from bridge.core.config import Config, WallboxConfig
from bridge.core.limits import Books
from bridge.core.model import (
    Confirmed,
    Decision,
    Device,
    Event,
    Limit,
    Link,
    Now,
    Offer,
    PerLine,
    Read,
    Reconfigured,
    Roll,
    Setpoint,
    SetVariables,
    Snapshot,
    State,
    Stored,
)
from bridge.core.roll import called, unready
from bridge.core.sharing import Held, Wish

_LONGEST_SWEEP_S = 10.0
"""No device takes longer to be read; what comes later comes after an interruption."""
_MAX_PENDING = 8
_NEVER_SEEN = Device()
_NEVER_OFFERED = Offer()


def first(config: Config, state: State, now: Now) -> Snapshot:
    """The snapshot to start with."""
    roll = called(config, state, None)
    decision = decide(config, state, roll, now)
    return Snapshot(config, replace(state, offers=offered(roll, decision, 1, now)), decision, now, 1, roll)


def run(before: Snapshot, events: Iterable[Event], now: Now) -> Snapshot:
    """One round: apply all events, decide once, and write down what was offered."""
    config, state = before.config, before.state
    sets: list[SetVariables] = []
    for event in events:
        if isinstance(event, Reconfigured):
            config = event.config
            continue
        if isinstance(event, SetVariables):
            sets.append(event)
        state = apply(config, state, event, now)
    for device in config.inputs:
        if own := inputs.news(config, state, device, now):
            state = apply(config, state, own, now)
    roll = called(config, state, before.roll)
    decision = decide(config, state, roll, now)
    revision = before.revision + 1
    offers = offered(roll, decision, revision, now)
    if sets:
        # The registers come first: how the boxes follow is written up in the next round, when storage has answered.
        kept = receipts.opened(state, sets, decision, now)
        state = replace(state, offers=offers, receipts=kept, last_receipt=state.last_receipt + len(sets))
    else:
        state = replace(state, offers=offers)
        state = replace(state, receipts=receipts.followed(state, decision))
    return Snapshot(config, state, decision, now, revision, roll)


def fallback(before: Snapshot, now: Now) -> Snapshot:
    """The safe side, should a round ever fail: every wallbox pauses, everything else stays as it was known."""
    reason = "internal error: paused to be safe"
    setpoints = {box.id: Setpoint(0.0, 0.0, 0.0, reason, "bridge") for box in before.config.wallboxes}
    grid = replace(before.decision.grid, limit_w=0.0, state="failsafe", reason=reason, source="bridge")
    decision = replace(before.decision, grid=grid, setpoints=setpoints, alarms={"bridge": reason})
    return replace(before, decision=decision, now=now, revision=before.revision + 1)


def apply(config: Config, state: State, event: Event, now: Now) -> State:
    """What we know after an event."""
    match event:
        case SetVariables():
            return replace(state, variables=variables.after(config, state, event, now))
        case Read():
            return _read(config, state, event)
        case Link():
            device = state.devices.get(event.device, Device())
            changed = replace(device, online=event.online, reason=event.reason)
            return replace(state, devices={**state.devices, event.device: changed})
        case Confirmed():
            return replace(state, offers={**state.offers, event.wallbox: _confirmed(state, event, now)})
        case Stored():
            return receipts.stored(state, event, now)
    return state


def _confirmed(state: State, event: Confirmed, now: Now) -> Offer:
    offer = state.offers.get(event.wallbox, _NEVER_OFFERED)
    pending = tuple(entry for entry in offer.pending if entry[0] > event.revision)
    changed = replace(offer, confirmed_a=event.current_a, confirmed_at=now.utc, pending=pending)
    if (offer.ceiling_a or 0.0) <= (changed.ceiling_a or 0.0):
        return changed
    return replace(changed, lowered=(now.mono, offer.lately_a(now.mono) or 0.0))


def _read(config: Config, state: State, event: Read) -> State:
    """Take in a reading; it may also tell something about the house's other load."""
    known = state.devices.get(event.device, _NEVER_SEEN)
    flow = "power_w" in event.values or "current_l1_a" in event.values
    previous = known.values if flow else known.previous
    values, counter = counters.guarded(config, known, event)
    apart_s = event.mono - known.mono
    every_s = apart_s if flow and apart_s <= _LONGEST_SWEEP_S else known.every_s
    doubt = known.reason if known.online else ""
    device = Device(True, doubt, values, event.mono, previous, every_s, counter)
    return otherload.observed(config, replace(state, devices={**state.devices, event.device: device}), event)


def decide(config: Config, state: State, roll: Roll, now: Now) -> Decision:
    """What follows from what we know: limits and setpoints, each with reason and source. Never raises."""
    books = Books(config, state, now)
    grid = limits.connection(books)
    room, binding = limits.room(books, grid)
    setpoints = _setpoints(books, roll, room, binding)
    values = books.names.values()
    alarms = {**roll.alarms, "grid_failsafe": grid.reason} if grid.state == "failsafe" else roll.alarms
    return Decision(values, grid, setpoints, books.names.notes, alarms)


def _setpoints(books: Books, roll: Roll, room: PerLine, binding: Limit) -> Mapping[str, Setpoint]:
    """A setpoint for every wallbox. Unreachable ones keep what they were offered, booked against the others."""
    left = list(room)
    caps: dict[str, Limit] = {}
    held: dict[str, Held] = {}
    setpoints = dict(roll.idle)
    wishes: list[Wish] = []
    booked: list[Wish] = []
    for box, device, offer in roll.present:
        cap = limits.wallbox(books, box)
        ceiling = offer.ceiling_a
        if ceiling is None:
            ceiling = box.capability.max_a  # nothing is known of it: it may be drawing all it can
        if not device.online:
            for line in box.lines:
                left[line - 1] -= ceiling
            setpoints[box.id] = _unreachable(box, device, offer, cap, room)
            continue
        why = _why_not(box, device, offer, cap, books.now)
        if why:
            setpoints[box.id] = Setpoint(0.0, cap.amount, 0.0, why, "wallbox")
            if ceiling <= 0:
                continue
        wish = Wish(box.id, box.lines, box.least_a, cap.amount, box.capability.step_a, box.priority, _charging(device))
        booked.append(wish)
        held[box.id] = Held(offer.confirmed_a or 0.0, ceiling)
        if not why:
            wishes.append(wish)
            caps[box.id] = cap
    rest = (left[0], left[1], left[2])
    targets = sharing.share(wishes, rest)
    released = sharing.release(targets, booked, held, rest)
    shared = f", shared by {len(wishes)} wallboxes" if len(wishes) > 1 else ""
    together = Limit(binding.amount, binding.reason + shared, binding.source)
    for wish in wishes:
        setpoints[wish.id] = _explained(wish, caps[wish.id], targets[wish.id], released[wish.id], together)
    return setpoints


def _charging(device: Device) -> bool:
    return device.values.get("state") in ("C", "D")


def _unreachable(box: WallboxConfig, device: Device, offer: Offer, cap: Limit, room: PerLine) -> Setpoint:
    """What an unreachable box shall find when it is back: what it last was offered, where the limits still allow it."""
    if offer.ceiling_a is None:
        reason = f"not reachable ({device.reason}): {box.capability.max_a:g} A stay booked for it"
        return Setpoint(0.0, cap.amount, 0.0, reason, "wallbox")
    allowed = min(cap.amount, *(room[line - 1] for line in box.lines))
    kept = min(offer.ceiling_a, sharing.floor_to_step(allowed, box.capability.step_a))
    kept = kept if kept >= box.least_a else 0.0
    reason = f"not reachable ({device.reason}): {offer.ceiling_a:g} A stay booked for it"
    return Setpoint(kept, cap.amount, kept, reason, "wallbox")


def _why_not(box: WallboxConfig, device: Device, offer: Offer, cap: Limit, now: Now) -> str:
    """Why a reachable box gets nothing, whatever room there is; empty when it takes part in the sharing."""
    if why := unready(device):
        return why
    if cap.amount < box.least_a:
        return f"paused: {cap.reason}, below the minimum of {box.least_a:g} A"
    if now.mono - offer.paused_mono < box.min_pause_s:
        return f"paused for at least {box.min_pause_s:g} s"
    return ""


def _explained(wish: Wish, cap: Limit, target: float, now_a: float, shared: Limit) -> Setpoint:
    """A setpoint with the reason that binds it."""
    if target <= 0:
        reason = f"paused: {shared.reason}: less than the minimum of {wish.min_a:g} A is left"
        return Setpoint(now_a, cap.amount, target, reason, shared.source)
    if now_a < target:
        return Setpoint(now_a, cap.amount, target, "waiting until the room for more is confirmed", "wallbox")
    if target + wish.step_a > cap.amount:
        return Setpoint(now_a, cap.amount, target, cap.reason, cap.source)
    return Setpoint(now_a, cap.amount, target, shared.reason, shared.source)


def offered(roll: Roll, decision: Decision, revision: int, now: Now) -> Mapping[str, Offer]:
    """What is offered: from now on it may be in force, confirmed or not. Idle boxes hold nothing, as they shall."""
    offers: dict[str, Offer] | None = None
    for box, _, offer in roll.present:
        setpoint = decision.setpoints[box.id]
        last = offer.pending[-1][1] if offer.pending else offer.confirmed_a
        if setpoint.current_a == last:
            continue
        pending = (*offer.pending, (revision, setpoint.current_a))
        if len(pending) > _MAX_PENDING:
            # The two oldest become one: the higher current, settled only when the younger one is.
            oldest, second, *rest = pending
            pending = ((second[0], max(oldest[1], second[1])), *rest)
        paused_mono = now.mono if setpoint.current_a <= 0 < (last or 0.0) else offer.paused_mono
        offers = dict(roll.offers) if offers is None else offers
        offers[box.id] = Offer(offer.confirmed_a, offer.confirmed_at, pending, paused_mono, offer.lowered)
    return roll.offers if offers is None else offers
