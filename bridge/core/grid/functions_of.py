"""Which function of the gateway a variable belongs to, so that a function can be switched off as a whole."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache

from bridge.core.config import Config, MeterConfig
from bridge.core.formulas import Formula
from bridge.core.gateway import Function
from bridge.core.model import State
from bridge.core.rules import balance


def barred(
    config: Config, state: State, keys: Iterable[str], wanted: Mapping[str, Formula] | None = None
) -> dict[str, Function]:
    """Those of the variables ``keys`` that may not be set through the gateway, with the function that is off.

    Keys are folded names. ``wanted`` are the formulas a set brings along: what a limit will depend on counts, too.
    """
    functions = config.smgw.functions if config.smgw else None
    if functions is None or (functions.power_limit and functions.tariffs):
        return {}
    names = limiting(config, state, wanted or {})
    found = {key: _function_of(config, key, names) for key in keys}
    return {key: function for key, function in found.items() if not getattr(functions, function)}


def _function_of(config: Config, key: str, limiting: set[str]) -> Function:
    """What was declared, else what the variable is used for."""
    if key in config.declared and (function := config.declared[key][1].function):
        return function
    return "power_limit" if key in limiting else "tariffs"


def limiting(config: Config, state: State, wanted: Mapping[str, Formula]) -> set[str]:
    """Every name on which a limit depends: directly, by way of other variables, or of meters that are worked out.

    A variable counts with all its formulas: the initial one, which comes back after ``clear``, the fallback, the one
    in force, and the one that is wanted.
    """
    found: set[str] = set()
    todo = [*_named(config)]
    while todo:
        name = todo.pop()
        if name not in found:
            found.add(name)
            todo += [deeper for formula in _behind(config, state, wanted, name) for deeper in formula.names]
    return found


@lru_cache(maxsize=8)
def _named(config: Config) -> frozenset[str]:
    """The names that stand in the formulas of limits."""
    return frozenset(name for formula in _limits(config) for name in formula.names)


def _limits(config: Config) -> Iterator[Formula]:
    """The formulas of all limits; a worked-out meter at the house connection takes its part in them."""
    grid = config.grid
    yield from filter(None, (grid.connection_power_w, grid.connection_current_a, grid.reserve_w))
    yield from filter(None, (grid.wallbox_power_w, grid.wallbox_current_a, grid.controllable_power_w))
    for group in config.groups:
        yield from filter(None, (group.power_w, group.current_a))
    for box in config.wallboxes:
        yield from filter(None, (box.max_current_a, box.max_power_w))
    for meter in config.meters:
        if meter.role == "grid":
            yield from meter.values.values()


def _behind(config: Config, state: State, wanted: Mapping[str, Formula], name: str) -> Iterator[Formula]:
    """The formulas behind a folded name."""
    if name in config.declared:
        declared = config.declared[name][1]
        yield from filter(None, (declared.initial, declared.fallback))
    if name in state.variables:
        yield state.variables[name].formula
        if under := state.variables[name].under:
            yield under.formula
    if name in wanted:
        yield wanted[name]
    head, dot, _ = name.partition(".")
    device = config.by_key.get(head) if dot else None
    if isinstance(device, MeterConfig):
        yield from device.values.values()
    if (dot and head == "gm") or name in balance.PREDEFINED:
        yield from filter(None, [config.grid.surplus_w])
        for meter in config.meters:
            yield from meter.values.values()
