"""Overrides: what somebody at the wallbox wants otherwise until the car leaves.

An override can switch charging off, limit the current, and lift charging rules. It never lifts a limit of the grid or
of a fuse: those are worked out without it, and the lowest wins. It is forgotten when the bridge starts anew.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from bridge.core.config import Config, WallboxConfig
from bridge.core.decision import Limit
from bridge.core.events import Override, Read, Switch
from bridge.core.formulas import fold
from bridge.core.model import Now, Overridden, State
from bridge.core.variables import Refused

FLAGS: Mapping[str, Switch] = {"c": "charging", "e": "rules", "u": "user_rules"}
"""Letter of the vendor's ``flags`` to what it switches: capital is off, small is on again."""


def accept(config: Config, state: State, wallbox: str, flags: str, current_a: float | None, source: str) -> Override:
    """Check what is wanted and make the event of it; raises :class:`~bridge.core.variables.Refused`.

    ``flags`` are letters of :data:`FLAGS`. ``current_a`` limits each line; None leaves it, a negative one lifts it.
    """
    box = config.by_key.get(fold(wallbox))
    if not isinstance(box, WallboxConfig):
        there = ", ".join(box.id for box in config.wallboxes) or "none"
        raise Refused(f"there is no wallbox {wallbox[:40]!r}; there are {there}")
    if unknown := [letter for letter in flags if letter.lower() not in FLAGS]:
        raise Refused(f"flags knows no {unknown[0]!r}; C or c charging, E or e rules, U or u user rules: off or on")
    off = frozenset(FLAGS[letter.lower()] for letter in flags if letter.isupper())
    on = frozenset(FLAGS[letter] for letter in flags if letter.islower())
    if off & on:
        raise Refused(f"flags {flags[:40]!r} switch the same thing off and on")
    if not flags and current_a is None:
        raise Refused("nothing to override: give flags or a current")
    if source == "mqtt" and off - {"charging"}:
        raise Refused(f"rules may not be lifted through {source}", forbidden=True)
    if box.id not in state.cars:
        raise Refused(f"no car is connected to {box.id}: an override lasts until the car leaves")
    limit_a = math.inf if current_a is not None and current_a < 0 else current_a
    return Override(box.id, source, off, on, limit_a)


def after(state: State, event: Override, now: Now) -> State:
    """The state after an override; without a car nothing sticks."""
    if event.wallbox not in state.cars:
        return state
    before = state.overrides.get(event.wallbox)
    off = ((before.off if before else frozenset()) | event.off) - event.on
    limit_a = event.current_a
    if limit_a is None:
        limit_a = before.current_a if before else math.inf
    others = {id: override for id, override in state.overrides.items() if id != event.wallbox}
    if off or limit_a < math.inf:
        others[event.wallbox] = Overridden(off, limit_a, event.source, now.utc)
    return state.but(overrides=others)


def after_reading(state: State, event: Read) -> State:
    """The state after a reading: when the car has left, so has what was overridden for it."""
    if event.device not in state.overrides or event.values.get("state") != "A":
        return state
    return state.but(overrides={id: o for id, o in state.overrides.items() if id != event.device})


def cap(state: State, box: WallboxConfig) -> Limit | None:
    """What is overridden at a wallbox, in amperes per line; None: nothing that limits it."""
    override = state.overrides.get(box.id)
    if override is None:
        return None
    if "charging" in override.off:
        return Limit(0.0, "charging is switched off until the car leaves", override.source)
    if override.current_a == math.inf:
        return None
    reason = f"no more than {override.current_a:g} A until the car leaves"
    return Limit(override.current_a, reason, override.source)
