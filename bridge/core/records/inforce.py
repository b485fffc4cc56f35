"""The limits in force that a grid command can change, and which of them are reduced.

Every power or current limit of the house connection, of the wallboxes together and of a single wallbox counts, if its
formula has names in it. A limit is reduced when it lies below what it is with every variable at its initial value, so
also while it is still coming back.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

from bridge.core.config import Config
from bridge.core.decision import Decision, Unknown
from bridge.core.formulas import Formula
from bridge.core.limits import Books
from bridge.core.model import Now, State

CONNECTION = "connection_power_w"


class InForce(NamedTuple):
    """``limits`` by their place in the configuration (``wallbox_power_w``, ``E1.max_power_w``).

    ``doubtful``: some have no value just now and are left out; whether they are reduced cannot be told.
    """

    limits: Mapping[str, float]
    reduced: frozenset[str]
    doubtful: bool


def in_force(config: Config, state: State, decision: Decision, now: Now) -> InForce:
    """What holds after a decision. The limit of the connection was worked out for it already."""
    grid = decision.grid
    limits = {CONNECTION: grid.limit_w}
    doubtful = grid.state == "failsafe"
    watched = _watched(config)
    if not watched:
        return InForce(limits, frozenset([CONNECTION] if grid.state == "limited" else []), doubtful)
    books = Books(config, state, now)
    reduced = set()
    if not doubtful and books.reduced(config.grid.connection_power_w, grid.limit_w):
        reduced.add(CONNECTION)
    for key, (formula, unit) in watched.items():
        limit = books.limit(formula, unit)
        if isinstance(limit, Unknown):
            doubtful = True
            continue
        limits[key] = limit.amount
        if books.reduced(formula, limit.amount):
            reduced.add(key)
    return InForce(limits, frozenset(reduced), doubtful)


@lru_cache(maxsize=8)
def _watched(config: Config) -> Mapping[str, tuple[Formula, str]]:
    """Place to formula and unit, beside the connection's power; none whose variables are all declared as tariffs."""
    grid = config.grid
    found: dict[str, tuple[Formula | None, str]] = {
        "connection_current_a": (grid.connection_current_a, "A"),
        "wallbox_power_w": (grid.wallbox_power_w, "W"),
        "wallbox_current_a": (grid.wallbox_current_a, "A"),
        "controllable_power_w": (grid.controllable_power_w, "W"),
    }
    for box in config.wallboxes:
        found[f"{box.id}.max_power_w"] = (box.max_power_w, "W")
        found[f"{box.id}.max_current_a"] = (box.max_current_a, "A")
    tariffs = {key for key, (_, declared) in config.declared.items() if declared.function == "tariffs"}
    return {key: (formula, unit) for key, (formula, unit) in found.items() if formula and formula.names - tariffs}
