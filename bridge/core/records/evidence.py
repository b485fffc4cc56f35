"""Evidence: what the journal must be able to prove about each grid command, worked out round by round.

BK6-22-300, Anlage 1, 7.2 asks whoever is controlled to show, for a single case and so that the grid operator can follow
it, that a reduction was carried out; 7.3 to keep that for two years. A *grid event* is open while a limit is reduced
(:mod:`bridge.core.records.inforce`). While it is, the journal has the commands, when they became effective and how,
what was drawn in each minute, what the wallboxes were told, and the release. Fail-safe episodes of our own stand apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bridge.core.config import Config
from bridge.core.decision import Decision
from bridge.core.events import SetVariables
from bridge.core.model import Now, Snapshot, State
from bridge.core.records import commanded
from bridge.core.records.drawn import averages, drawn, figures, inside, measured
from bridge.core.records.inforce import InForce, in_force
from bridge.core.records.journal import Journal, Minute, Watch, figure, instant

LOOK_S = 1.0
"""What is drawn is looked at once a second; a set is looked at in the round that it makes."""
TRACE_S = 60.0
CLOCK_S = 2.0
"""A wall clock that gains or loses more than this between two rounds was set."""
DEADLINES_S = (60.0, 300.0)
"""A command that is not effective by then is late. Reductions are due without delay; five minutes are the outermost
(BK6-22-300, Anlage 1, 4.2)."""
MAX_SETPOINTS = 50
"""Wallboxes in one entry; the others follow with the next."""


def noted(
    config: Config, before: Snapshot, state: State, decision: Decision, sets: Sequence[SetVariables], now: Now
) -> Journal:
    """The journal after a round that took in ``sets``, whose receipts ``state`` has, and came to ``decision``."""
    journal = state.journal
    jumped_s = (now.utc - before.now.utc) - (now.mono - before.now.mono)
    news = config is not before.config or abs(jumped_s) > CLOCK_S or sets
    if not news and now.mono - journal.looked < LOOK_S:
        return journal
    if abs(jumped_s) > CLOCK_S:
        journal = journal.noting("clock", now.utc, now.zone, {"jumped_s": figure(jumped_s)})
    if config is not before.config or journal.last == 0:
        journal = journal.noting("configured", now.utc, now.zone, _formulas(config))
    found = in_force(config, state, decision, now)
    journal = _opened(journal, found, now)
    if sets:
        journal = commanded.noted(journal, config, state, decision, sets, found.limits, now)
    if journal.event and not found.reduced and not found.doubtful:
        journal = _released(journal, state, decision, found, now)
    journal = _failsafe(journal._replace(limits=found.limits), decision, now)
    if sets:
        # The registers come first: what is drawn is looked at in the next round.
        return journal._replace(looked=float("-inf"))
    journal = commanded.summed(journal, now)
    if journal.watch:
        journal = _followed(journal, journal.watch, config, state, decision, found, now)
    return journal._replace(looked=now.mono)


def alarms(journal: Journal) -> Mapping[str, str]:
    """What somebody should know, by name of the alarm."""
    found: dict[str, str] = {}
    if journal.error:
        found["journal"] = f"grid commands cannot be written to the journal: {journal.error}"
    if journal.watch and journal.watch.late and not journal.watch.effective:
        found["grid_late"] = (
            f"{DEADLINES_S[journal.watch.late - 1]:g} s after a grid command more is drawn than it allows"
        )
    return found


def _formulas(config: Config) -> dict[str, object]:
    """What makes limits of variables."""
    grid = config.grid
    formulas = {
        "connection_power_w": grid.connection_power_w,
        "connection_current_a": grid.connection_current_a,
        "wallbox_power_w": grid.wallbox_power_w,
        "wallbox_current_a": grid.wallbox_current_a,
        "controllable_power_w": grid.controllable_power_w,
    }
    texts: dict[str, object] = {key: formula.text for key, formula in formulas.items() if formula}
    return texts | {"failsafe_power_w": figure(grid.failsafe_power_w), "wallboxes": len(config.wallboxes)}


def _opened(journal: Journal, found: InForce, now: Now) -> Journal:
    """An event is opened by the first reduced limit; one that was open before a restart goes on."""
    if journal.watch or not (journal.event or found.reduced):
        return journal
    watch = Watch(now.mono, Minute(now.mono))
    return journal._replace(event=journal.event or instant(now.utc), watch=watch)


def _released(journal: Journal, state: State, decision: Decision, found: InForce, now: Now) -> Journal:
    """No limit is reduced any more."""
    journal = commanded.summed(journal, now, everything=True)
    if journal.watch:
        journal = _minute(journal, journal.watch, state, decision, journal.limits, now)
    facts = commanded.in_short(decision, found.limits)
    journal = journal.noting("release", now.utc, now.zone, facts | {"reason": decision.grid.reason})
    return journal._replace(event="", watch=None)


def _failsafe(journal: Journal, decision: Decision, now: Now) -> Journal:
    """The bridge's own fail-safe begins or ends: no command of the grid operator, and never mixed up with one."""
    on = decision.grid.state == "failsafe"
    if on == journal.failsafe:
        return journal
    facts = {"on": on, "limit_w": figure(decision.grid.limit_w), "reason": decision.grid.reason}
    return journal.noting("failsafe", now.utc, now.zone, facts)._replace(failsafe=on)


def _followed(
    journal: Journal, watch: Watch, config: Config, state: State, decision: Decision, found: InForce, now: Now
) -> Journal:
    """A second of an open event: has the command become effective, is it late, is a minute over?"""
    seen = drawn(config, state, decision, now)
    obeys = inside(found.reduced, found.limits, seen)
    since_s = now.mono - watch.since
    watch = watch._replace(minute=measured(watch.minute, seen))
    told = {
        "limits": commanded.shown(found.limits),
        "receipt": watch.receipt,
        "after_s": figure(since_s),
        **figures(seen),
    }
    if not watch.effective and obeys:
        how = "commanded" if watch.looked else "already below"
        journal, watch = _setpoints(journal, watch._replace(effective=True), state, decision, now)
        journal = journal.noting("effective", now.utc, now.zone, {**told, "how": how})
    elif not watch.effective and watch.late < len(DEADLINES_S) and since_s >= DEADLINES_S[watch.late]:
        told["deadline_s"] = figure(DEADLINES_S[watch.late])
        journal, watch = _setpoints(journal, watch._replace(late=watch.late + 1), state, decision, now)
        journal = journal.noting("late", now.utc, now.zone, told)
    watch = watch._replace(looked=True)
    if now.mono - watch.minute.since < TRACE_S:
        return journal._replace(watch=watch)
    return _minute(journal, watch, state, decision, found.limits, now)


def _minute(
    journal: Journal, watch: Watch, state: State, decision: Decision, limits: Mapping[str, float], now: Now
) -> Journal:
    """A minute is over, or the event: what wallboxes were told in it, and what was drawn."""
    journal, watch = _setpoints(journal, watch, state, decision, now)
    if watch.minute.samples:
        journal = journal.noting(
            "trace", now.utc, now.zone, {"limits": commanded.shown(limits), **averages(watch.minute, now)}
        )
    return journal._replace(watch=watch._replace(minute=Minute(now.mono)))


def _setpoints(journal: Journal, watch: Watch, state: State, decision: Decision, now: Now) -> tuple[Journal, Watch]:
    """What wallboxes were told, and when they confirmed it, where that changed since it was written last."""
    changed: dict[str, tuple[float, float | None]] = {}
    shown: dict[str, object] = {}
    for box, setpoint in decision.setpoints.items():
        offer = state.offers.get(box)
        pair = (setpoint.current_a, offer.confirmed_a if offer else None)
        if watch.told.get(box) == pair or len(changed) >= MAX_SETPOINTS:
            continue
        changed[box] = pair
        confirmed_at = instant(offer.confirmed_at) if offer and offer.confirmed_at else None
        held = {"wanted_a": figure(pair[0], 3), "confirmed_a": figure(pair[1], 3)}
        shown[box] = {**held, "confirmed_at": confirmed_at}
    if shown:
        journal = journal.noting("setpoints", now.utc, now.zone, {"wallboxes": shown})
    return journal, watch._replace(told={**watch.told, **changed})
