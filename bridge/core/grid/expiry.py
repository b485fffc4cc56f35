"""Variables that run out: what was set to hold for a while, or must be set again and again to go on holding."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache

from bridge.core.config import Config
from bridge.core.model import Now, State, Variable


def expired(config: Config, state: State, now: Now) -> State:
    """The state in which every variable whose time is over has expired; under one of MQTT is what others had set.

    The time since a set counts on the clock that nobody can set. Across a restart only the time of day is left: then
    a variable holds no longer than it would if it were set now.
    """
    timed = _timed(config)
    over: dict[str, Variable] = {}
    for key, variable in state.variables.items():
        if key in timed or variable.until is not None or variable.under:
            aged = _aged(config, state, key, variable, now)
            if aged is not variable:
                over[key] = aged
    return state.but(variables={**state.variables, **over}) if over else state


def _aged(config: Config, state: State, key: str, variable: Variable, now: Now) -> Variable:
    """A variable as it is now; the very same when its time is not over."""
    if variable.under:
        under = _aged(config, state, key, variable.under, now)
        if under is not variable.under:
            variable = replace(variable, under=under)
    if variable.expired or _left_s(config, state, key, variable, now) > 0:
        return variable
    return variable.under or replace(variable, until=ends_at(config, key, variable), expired=True)


def ends_at(config: Config, key: str, variable: Variable) -> float | None:
    """When a variable runs out (UTC): after ``ttl_s`` of its declaration, or earlier if its sender said so."""
    ttl_s = _timed(config).get(key)
    if variable.expired or ttl_s is None or variable.source == "config":
        return variable.until
    declared = variable.set_at + ttl_s
    return declared if variable.until is None else min(declared, variable.until)


def _left_s(config: Config, state: State, key: str, variable: Variable, now: Now) -> float:
    until = ends_at(config, key, variable)
    if until is None:
        return math.inf
    lasts_s = until - variable.set_at
    if variable.set_mono is not None:
        return lasts_s - (now.mono - variable.set_mono)
    started = state.started or now
    return min(until - started.utc, lasts_s) - (now.mono - started.mono)


@lru_cache(maxsize=8)
def _timed(config: Config) -> Mapping[str, float]:
    """``ttl_s`` of the variables that have it, by folded name."""
    return {key: declared.ttl_s for key, (_, declared) in config.declared.items() if declared.ttl_s is not None}
