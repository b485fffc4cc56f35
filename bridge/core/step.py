"""One step of the house: an event changes what we know, what we know decides.

The hub calls :func:`run` once a round; :func:`apply` and :func:`decide` are what it is made of. All pure.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

from bridge.core import bounds, limits, offers, setpoints, switching, variables
from bridge.core.config import Config, WallboxConfig
from bridge.core.decision import Decision, Setpoint
from bridge.core.events import (
    Capped,
    Certificates,
    Confirmed,
    Event,
    Journaled,
    Link,
    Override,
    PhasesConfirmed,
    Read,
    Reconfigured,
    SessionsStored,
    SetVariables,
    Stored,
)
from bridge.core.formulas import fold
from bridge.core.grid import contacts, expiry, standing
from bridge.core.limits import Books
from bridge.core.loads import attached, cars, counters, inputs, otherload, overdraft, phases
from bridge.core.model import Device, Now, Roll, Snapshot, State
from bridge.core.records import certificates, evidence, receipts, sessions
from bridge.core.roll import called
from bridge.core.rules import overrides, surplus

_REMEMBERED_S = 8.0
"""Readings are remembered for so long: a meter reading may have to wait for slow wallboxes."""


def first(config: Config, state: State, now: Now) -> Snapshot:
    """The snapshot to start with."""
    state = _passed(config, sessions.resumed(state.but(started=now), now), now)
    roll = called(config, state, None)
    decision = decide(config, state, roll, now)
    given = offers.offered(roll, decision, 1, now)
    state = state.but(offers=given, grid=decision.grid, releases=decision.releases)
    return Snapshot(config, state, decision, now, 1, roll)


def run(before: Snapshot, events: Sequence[Event], now: Now) -> Snapshot:
    """One round: apply all events, decide once, and write down what came of it."""
    return recorded(before, decided(before, events, now), events)


def decided(before: Snapshot, events: Iterable[Event], now: Now) -> Snapshot:
    """The first half of a round, all that registers have to wait for: apply the events, decide, note what is offered.

    Only who writes registers may see this; :func:`recorded` makes it whole.
    """
    config, state = before.config, before.state
    for event in events:
        if isinstance(event, Reconfigured):
            state = state.but(loads=otherload.moved(config, event.config, state))
            config = event.config
            continue
        state = apply(config, state, event, now)
    for device in config.inputs:
        if own := inputs.news(config, state, device, now):
            state = apply(config, state, own, now)
    state = surplus.followed(config, _passed(config, state, now), now)
    roll = called(config, state, before.roll)
    decision = decide(config, state, roll, now)
    revision = before.revision + 1
    given = offers.offered(roll, decision, revision, now)
    state = state.but(offers=given, grid=decision.grid, releases=decision.releases)
    return Snapshot(config, state, decision, now, revision, roll)


def recorded(before: Snapshot, snapshot: Snapshot, events: Iterable[Event]) -> Snapshot:
    """The second half: receipts, sessions and the journal of what the first made of ``events``."""
    config, state, decision, now = snapshot.config, snapshot.state, snapshot.decision, snapshot.now
    assert snapshot.roll is not None
    sets = [event for event in events if isinstance(event, SetVariables)]
    if sets:
        # How the boxes follow is written up in the next round: what was set shall get to the disk now.
        kept = receipts.opened(state, sets, decision, now)
        state = state.but(receipts=kept, last_receipt=state.last_receipt + len(sets))
    else:
        drawn = overdraft.excess(config, state, decision.grid)
        cut = overdraft.watched(state.overdraft, drawn, overdraft.level(config, decision.grid), now)
        lasting = sessions.followed(config, state, decision, now)
        state = state.but(overdraft=cut, receipts=receipts.followed(state, decision), sessions=lasting)
        state = switching.followed(config, state, snapshot.roll, snapshot.revision + 1, now)
    journal = evidence.noted(config, before, state, decision, sets, now)
    state = state if journal is state.journal else state.but(journal=journal)
    return Snapshot(config, state, decision, now, snapshot.revision, snapshot.roll)


def _passed(config: Config, state: State, now: Now) -> State:
    """What time alone has changed."""
    return contacts.followed(config, expiry.expired(config, state, now), now)


def fallback(before: Snapshot, now: Now) -> Snapshot:
    """The safe side, should a round ever fail: every wallbox pauses, everything else stays as it was known."""
    reason = "internal error: paused to be safe"
    paused = {box.id: Setpoint(0.0, 0.0, 0.0, reason, "bridge") for box in before.config.wallboxes}
    grid = before.decision.grid._replace(limit_w=0.0, state="failsafe", reason=reason, source="bridge")
    decision = replace(before.decision, grid=grid, setpoints=paused, alarms={"bridge": reason})
    return replace(before, decision=decision, now=now, revision=before.revision + 1)


def apply(config: Config, state: State, event: Event, now: Now) -> State:
    """What we know after an event."""
    match event:
        case SetVariables():
            return state.but(variables=variables.after(config, state, event, now), set_mono=now.mono)
        case Read():
            return _read(config, state, event)
        case Link():
            device = state.device(event.device)
            changed = device._replace(online=event.online, reason=event.reason)
            return phases.after_link(state.but(devices={**state.devices, event.device: changed}), event)
        case Confirmed() if math.isfinite(event.current_a):
            offer = offers.confirmed(state.offer(event.wallbox), event, now)
            return state.but(offers={**state.offers, event.wallbox: offer})
        case PhasesConfirmed():
            return phases.confirmed(state, event)
        case Stored():
            return receipts.stored(state, event, now)
        case Certificates():
            return state.but(certificates=event.not_after)
        case SessionsStored():
            return state.but(sessions=sessions.stored(state.sessions, event))
        case Journaled():
            return state.but(journal=state.journal.kept(event.through, event.head, event.error))
        case Override():
            return overrides.after(state, event, now).but(set_mono=now.mono)
        case Capped():
            return state.but(caps={**state.caps, event.wallbox: event})
    return state


def _read(config: Config, state: State, event: Read) -> State:
    """Take in a reading; it may also tell something about the house's other load."""
    known, event = attached.measured(config, state, event)
    flow = "power_w" in event.values or "current_l1_a" in event.values
    before = known.before
    if flow:
        recent = [one for one in before if one[0] > event.mono - _REMEMBERED_S]
        before = ((known.mono, known.values), *(recent or before[:1]))
    left = known.values
    if event.gone:
        left = {name: value for name, value in left.items() if name not in event.gone}
    values, counter = counters.guarded(config, known._replace(values=left), event)
    doubt = known.reason if known.online else ""
    device = Device(True, doubt, values, event.mono, before, counter)
    state = overrides.after_reading(state.but(devices={**state.devices, event.device: device}), event)
    box = config.by_key.get(fold(event.device))
    if isinstance(box, WallboxConfig):
        offer = state.offer(box.id)
        box = phases.as_switched(state, box)
        car = cars.seen(box, state.cars.get(box.id), device, offer, config.grid.voltage)
        if car is not None:
            state = state.but(cars={**state.cars, box.id: car})
        elif box.id in state.cars:
            state = state.but(cars={id: car for id, car in state.cars.items() if id != box.id})
    loads = otherload.observed(config, state, event)
    return state if loads is state.loads else state.but(loads=loads)


def decide(config: Config, state: State, roll: Roll, now: Now) -> Decision:
    """What follows from what we know: limits and setpoints, each with reason and source. Never raises."""
    books = Books(config, state, now)
    grid = limits.connection(books)
    found = bounds.bounds(books, grid)
    points = setpoints.decided(books, roll, found)
    values = books.names.values()
    own = {
        **standing.alarms(grid),
        **bounds.alarms(config, state),
        **contacts.alarms(config, state),
        **certificates.alarms(config, state, now),
    }
    own |= phases.alarms(state)
    own |= evidence.alarms(state.journal)
    alarms = {**roll.alarms, **own} if own else roll.alarms
    groups = bounds.groups(config, found)
    return Decision(values, grid, points, books.names.notes, alarms, books.releases, groups)
