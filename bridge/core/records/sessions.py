"""Charging sessions: followed from plug-in to unplug, whatever links, counters and restarts do meanwhile.

The energy is what the box's guarded counter (:mod:`bridge.core.loads.counters`) has moved. A box without one has its
power integrated. A wallbox that cannot be reached keeps its session: only a box that says so has no car.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import count

from bridge.core.config import Config, WallboxConfig
from bridge.core.decision import Decision
from bridge.core.events import SessionsStored
from bridge.core.formulas import fold
from bridge.core.model import Count, Counter, Device, Now, State
from bridge.core.records.charging import LOST, Sight, accrued, counted, seen, turned
from bridge.core.records.session import Ended, Mark, Session, Sessions, Span
from bridge.core.variables import fresh, plain

MAX_UNSTORED = 200
"""So many sessions wait for a disk that does not take them; older ones are given up."""

CERTAIN_S = 60.0
"""After a restart the counter must show within this time that another car is connected."""


def followed(config: Config, state: State, decision: Decision, now: Now) -> Sessions:
    """The sessions after a round: begun, continued and ended ones."""
    known = state.sessions
    still, ended = dict(known.open), []
    ids = count(known.last_id + 1)
    for box in config.wallboxes:
        session, device = known.open.get(box.id), state.device(box.id)
        if _nothing_new(session, box, device, now):
            continue
        sight = seen(config, box, device, decision, now)
        if session is not None:
            session, over = _continued(session, sight)
            ended += [over] if over else []
        if session is None and sight.connected:
            session = _begun(next(ids), sight)
        if session is not None:
            still[box.id] = session
        else:
            still.pop(box.id, None)
    for id, session in known.open.items():
        if fold(id) not in config.by_key:
            ended.append(_ended(still.pop(id), "unknown", session.seen_at))
    if not ended and len(still) == len(known.open) and all(still[id] is known.open.get(id) for id in still):
        return known
    last = {**known.last, **{session.wallbox: session for session in ended}} if ended else known.last
    unstored = (*known.unstored, *ended)[-MAX_UNSTORED:]
    return Sessions(still, unstored, last, next(ids) - 1)


def _nothing_new(session: Session | None, box: WallboxConfig, device: Device, now: Now) -> bool:
    """Whether a wallbox need not be looked at: most of the time nothing has come from it since the last round."""
    if session is None:
        return device.values.get("state") not in ("B", "C", "D")
    if session.ended or device is not session.mark.seen:
        return False
    return fresh(box, device, now) == (session.spans[-1].why != "unreachable")


def stored(sessions: Sessions, event: SessionsStored) -> Sessions:
    """The sessions after storage wrote some that have ended."""
    return replace(sessions, unstored=tuple(one for one in sessions.unstored if one.id not in event.ids))


def resumed(state: State, now: Now) -> State:
    """The state after a restart: the counters go on where the open sessions left them.

    What flowed meanwhile is then counted when it is believable for the time that has passed.
    """
    if not state.sessions.open:
        return state
    still, devices = {}, dict(state.devices)
    for id, session in state.sessions.open.items():
        mono = now.mono - max(0.0, now.utc - session.seen_at)
        counted_wh = None
        if session.end_wh is not None:
            counted_wh, since = 0.0, mono - session.connected_s
            devices[id] = Device(counter=Counter(Count(session.end_wh, mono), None, since, session.energy_wh))
        mark = Mark(mono, counted_wh=counted_wh, resumed_mono=now.mono)
        still[id] = replace(session, mark=mark, spans=turned(session.spans, session.seen_at, LOST))
    return state.but(devices=devices, sessions=replace(state.sessions, open=still))


def shown(session: Session, instant: Callable[[float], str]) -> dict[str, object]:
    """A session as HTTP and MQTT show it; ``instant`` writes Unix seconds. Without spans and RFID tag."""

    def whole(value: float | None, decimals: int = 0) -> float | None:
        return None if value is None else plain(round(value, decimals))

    return {
        "id": session.id,
        "wallbox": session.wallbox,
        "plugged_at": instant(session.plugged_at),
        "unplugged_at": None if session.unplugged_at is None else instant(session.unplugged_at),
        "ended": session.ended or None,
        "energy_wh": whole(session.energy_wh, 1),
        "estimated": session.estimated,
        "connected_s": whole(session.connected_s),
        "charging_s": whole(session.charging_s),
        "pauses_s": {why: whole(seconds) for why, seconds in session.pauses.items()},
        "start_wh": whole(session.start_wh, 1),
        "end_wh": whole(session.end_wh, 1),
        "phases": session.phases or None,
        "peak_w": whole(session.peak_w),
    }


def _begun(id: int, sight: Sight) -> Session:
    now = sight.now
    spans = (Span(now.utc, *sight.kind),)
    return accrued(
        Session(id, sight.box.id, now.utc, now.utc, spans=spans, mark=Mark(now.mono, counted_wh=sight.odometer_wh)),
        sight,
    )


def _continued(session: Session, sight: Sight) -> tuple[Session | None, Session | None]:
    """A session after a round: (it goes on, None) or (None, it has ended)."""
    if session.mark.resumed_mono is not None and sight.connected:
        same = _is_same(session, sight)
        if same is False:
            return None, _ended(session, "unknown", session.seen_at)
        if same is None:
            return session, None
        session = replace(session, mark=session.mark._replace(resumed_mono=None))
    if not session.ended and not sight.gone:
        return accrued(session, sight), None
    if not session.ended:
        unseen = session.spans[-1][1:3] == LOST
        session = _ended(accrued(session, sight), "unseen" if unseen else "unplugged", sight.now.utc)
    elif sight.odometer_wh not in (None, session.mark.counted_wh):
        session = counted(session, sight, 0.0)
    if sight.connected or _has_settled(session, sight):
        return None, session
    return session, None


def _is_same(session: Session, sight: Sight) -> bool | None:
    """Whether the car connected after a restart is the one from before; None: not to be said yet."""
    counter, since = sight.device.counter, session.mark.resumed_mono or 0.0
    if session.end_wh is None or counter is None or counter.believed is None:
        return True
    if counter.believed.mono > since:
        return True
    if counter.doubted and counter.doubted.wh > 0:
        return False
    return True if sight.now.mono - since > CERTAIN_S else None


def _has_settled(session: Session, sight: Sight) -> bool:
    """Whether the counter has had its last word after the car was gone: many are read at every tenth poll only."""
    counter = sight.device.counter
    if counter is None or sight.now.mono - session.mark.mono > 4 * sight.box.patience_s:
        return True
    told = [known.mono for known in (counter.believed, counter.doubted) if known]
    return max(told, default=session.mark.read_mono) >= session.mark.read_mono


def _ended(session: Session, how: Ended, at: float) -> Session:
    return replace(session, ended=how, unplugged_at=max(at, session.plugged_at))
