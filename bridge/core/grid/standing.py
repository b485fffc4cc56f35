"""How the house stands with the grid operator: in which state, since when, until when, and what it is owed at least.

The states are those of EEBUS LPC (init, unlimited, limited, failsafe) without its heartbeat: a gateway is silent for
good reasons, so a limit holds until it is changed, or until the time is over that it was set for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache

from bridge.core.config import Config
from bridge.core.decision import GridDecision, Limit
from bridge.core.functions import pmin14a
from bridge.core.grid.expiry import ends_at
from bridge.core.model import Now, State, Variable

INIT_S = 60.0
"""A grid meter that was not read after so long has an alarm of its own; the bridge is not starting any more."""


def told(
    config: Config,
    state: State,
    variables: Mapping[str, Variable],
    names: Iterable[str],
    grid: GridDecision,
    reduced: tuple[Limit, ...],
    now: Now,
) -> GridDecision:
    """The decision about the house connection with all that it does not say by itself.

    ``names`` are those that the grid side's limits are worked out from, ``reduced`` are those that are reduced now,
    in watts.
    """
    taking_part = [(key, variables[key]) for key in names if key in variables]
    stands = "init" if grid.state == "unlimited" and _starting(config, state, now) else grid.state
    limited = stands == "limited"
    minimum_w = least_w(config)
    return grid._replace(
        state=stands,
        since=_since(state, stands, [variable for _, variable in taking_part], now),
        until=min(filter(None, (_ends(config, key, v) for key, v in taking_part)), default=None) if limited else None,
        minimum_w=minimum_w,
        below_minimum=minimum_w is not None and any(_ordered(limit) < minimum_w for limit in reduced),
        reduced=reduced,
    )


@lru_cache(maxsize=8)
def least_w(config: Config) -> float | None:
    """What the controllable devices of the house may draw at least, in watts; None: there are none."""
    count = config.grid.controllable_devices
    return pmin14a(float(len(config.wallboxes) if count is None else count)) or None


def alarms(grid: GridDecision) -> Mapping[str, str]:
    """What somebody should know of the limit, by name of the alarm."""
    if grid.state == "failsafe":
        return {"grid_failsafe": grid.reason}
    if grid.below_minimum and grid.minimum_w is not None:
        lowest = min(grid.reduced, key=_ordered)
        text = f"obeyed, but below the {grid.minimum_w:g} W the grid operator owes: {lowest.reason}"
        return {"grid_below_minimum": text}
    return {}


def _ordered(limit: Limit) -> float:
    """What the grid side leaves, in watts: that a limit comes back gradually is none of its doing."""
    return limit.amount if limit.ordered is None else limit.ordered


def _starting(config: Config, state: State, now: Now) -> bool:
    """Whether the bridge has just started and knows nothing of the house connection yet."""
    unread = (state.device(m.id).mono == float("-inf") for m in config.meters if m.role == "grid")
    return now.mono - (state.started or now).mono < INIT_S and any(unread)


def _since(state: State, stands: str, variables: Iterable[Variable], now: Now) -> float:
    """Since when it stands like this; a limit from before a restart since the grid event that is open in the journal
    began, else since it was set last."""
    if state.grid is not None:
        return state.grid.since if state.grid.state == stands else now.utc
    if stands != "limited":
        return now.utc
    begun = state.journal.begun
    last = max((variable.set_at for variable in variables if variable.set_at), default=now.utc)
    return min(now.utc, last, last if begun is None else begun)


def _ends(config: Config, key: str, variable: Variable) -> float | None:
    """When a variable runs out, or what others had set before MQTT set it."""
    under = _ends(config, key, variable.under) if variable.under else None
    ends = None if variable.expired else ends_at(config, key, variable)
    return under if ends is None else min(ends, under or ends)
