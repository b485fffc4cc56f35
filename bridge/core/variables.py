"""Variables: who may set them, what they are now, and what every name in a formula stands for."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import lru_cache

from bridge.core.config import MAX_TTL_S, Config, DeviceConfig, VariableConfig
from bridge.core.decision import Unknown
from bridge.core.events import SetVariables
from bridge.core.formulas import Formula, FormulaError, NoValue, evaluate, fold, is_name, parse
from bridge.core.grid.expiry import ends_at
from bridge.core.grid.functions_of import barred
from bridge.core.model import Device, Now, Snapshot, State, Variable
from bridge.core.records.journal import instant
from bridge.core.rules import balance

MAX_VARIABLES = 500
MAX_TOTAL_SIZE = 20_000
"""Nodes of all variables' formulas together: bounds the work of one round."""

_UNDECLARED = VariableConfig()
_STATES = {letter: float(number) for number, letter in enumerate("ABCDEF", 1)}
_CONTACT = (parse(0), parse(1))
_MILLI = {f"current_l{line}": f"current_l{line}_a" for line in (1, 2, 3)}
_SAME = {"voltage_l1": "voltage_l1_v", "voltage_l2": "voltage_l2_v", "voltage_l3": "voltage_l3_v", "soc": "soc_pct"}
_SAME |= {f"input{number}": f"input_{number}" for number in range(1, 9)}

Pair = tuple[str, float | str] | tuple[str, float | str, object]
"""What to set: a name, a number or formula text, and for how many seconds, as it was sent (None: for ever)."""


class Refused(Exception):
    """A set cannot be accepted; the text says what is wrong and where. ``forbidden``: this door may not."""

    def __init__(self, message: str, forbidden: bool = False) -> None:
        super().__init__(message)
        self.forbidden = forbidden


def accept(
    config: Config, pairs: Sequence[Pair], clear: bool, source: str, state: State, peer: str = ""
) -> SetVariables:
    """Check a whole set and make the event of it: all or nothing.

    Of a name given twice the last value counts and the first spelling. ``peer`` is the certificate of whoever asks (see
    :class:`~bridge.core.events.SetVariables`). Raises :class:`Refused`. Formulas are parsed here, in the caller's
    thread, never in the hub's.
    """
    accepted: dict[str, tuple[str, Formula]] = {}
    lasting: dict[str, float | None] = {}
    for spelled, expression, *more in pairs:
        name = bare(spelled)
        if not is_name(name):
            raise Refused(f"{spelled[:80]!r} is no name: letters, digits and _, and no word of the formula language")
        key = fold(name)
        first = accepted[key][0] if key in accepted else name
        accepted[key] = (first, _accepted(config, name, key, expression, source))
        lasting[key] = _lasting(name, more[0] if more else None)
    if source == "smgw" and (off := barred(config, state, accepted, {key: pair[1] for key, pair in accepted.items()})):
        reasons = (f"{accepted[key][0]}: smgw.functions.{function} is switched off" for key, function in off.items())
        raise Refused("; ".join(reasons), forbidden=True)
    size = sum([formula.size for _, formula in accepted.values()])
    kept = {} if clear else state.variables
    for key, variable in kept.items():
        if key not in accepted:
            size += variable.formula.size
    if len(accepted.keys() | kept.keys() | config.declared.keys()) > MAX_VARIABLES:
        raise Refused(f"more than {MAX_VARIABLES} variables")
    if size > MAX_TOTAL_SIZE:
        raise Refused("the formulas of all variables together are too long")
    ttl_s = {key: seconds for key, seconds in lasting.items() if seconds is not None}
    return SetVariables(tuple(accepted.values()), clear, source, peer, ttl_s)


def bare(name: str) -> str:
    """A variable's name as it was spelled, without the ``CM.`` that may stand before it."""
    return name[3:] if name[:3].casefold() == "cm." else name


def _lasting(name: str, ttl_s: object) -> float | None:
    """For how many seconds a sender wants it to hold; None: for ever."""
    if ttl_s is None:
        return None
    try:
        seconds = float(ttl_s) if isinstance(ttl_s, int | float | str) and not isinstance(ttl_s, bool) else math.nan
    except (ValueError, OverflowError):
        seconds = math.nan
    if 0 < seconds <= MAX_TTL_S:
        return seconds
    raise Refused(f"{name}: ttl is a number of seconds above 0, at most {MAX_TTL_S:.0f}")


def _accepted(config: Config, name: str, key: str, expression: float | str, source: str) -> Formula:
    if key in config.contact_ids:
        raise Refused(f"{name} is a contact and cannot be set", forbidden=True)
    declared = config.declared.get(key, (name, _UNDECLARED))[1]
    if source not in declared.writers:
        writers = ", ".join(declared.writers) or "nobody"
        raise Refused(f"{name} may not be set through {source}; writers: {writers}", forbidden=True)
    try:
        formula = parse(expression)
    except FormulaError as error:
        raise Refused(f"{name}: {error}") from error
    refuse_outside(config, name, formula)
    return formula


def refuse_outside(config: Config, name: str, formula: Formula) -> None:
    """Raise :class:`Refused` where a plain number is outside the ``min`` and ``max`` of a declared variable."""
    declared = config.declared.get(fold(name), ("", _UNDECLARED))[1]
    if formula.constant is not None and _clamped(formula.constant, declared) != formula.constant:
        raise Refused(f"{name}: {formula.text} is outside {_range(declared)}")


def _clamped(value: float, declared: VariableConfig) -> float:
    low = -math.inf if declared.min is None else declared.min
    high = math.inf if declared.max is None else declared.max
    return min(max(value, low), high)


def _fits(config: Config, key: str, variable: Variable) -> bool:
    constant, declared = variable.formula.constant, config.declared.get(key)
    return declared is None or constant is None or _clamped(constant, declared[1]) == constant


def _range(declared: VariableConfig) -> str:
    low = "" if declared.min is None else f"min {declared.min:g}"
    high = "" if declared.max is None else f"max {declared.max:g}"
    return ", ".join(filter(None, (low, high)))


def after(config: Config, state: State, event: SetVariables, now: Now) -> Mapping[str, Variable]:
    """The variables after a set. ``clear`` removes all that this source may write, then the new ones are set.

    MQTT clears what was set over MQTT only, and what others had set comes back.
    """
    variables = dict(state.variables)
    if event.clear and event.source == "mqtt":
        variables = without_mqtt(state)
    elif event.clear:
        kept = barred(config, state, state.variables) if event.source == "smgw" else {}
        for key in state.variables:
            if key not in kept and event.source in config.declared.get(key, ("", _UNDECLARED))[1].writers:
                del variables[key]
    for name, formula in event.variables:
        key = fold(name)
        spelled = config.declared[key][0] if key in config.declared else name
        if key in state.variables:
            spelled = state.variables[key].name
        until = now.utc + event.ttl_s[key] if key in event.ttl_s else None
        under = _set_by_others(variables[key]) if event.source == "mqtt" and key in variables else None
        variables[key] = Variable(spelled, formula, event.source, now.utc, until, now.mono, under=under)
    return variables


def without_mqtt(state: State) -> dict[str, Variable]:
    """The variables as they would be if MQTT had set none."""
    found = {key: _set_by_others(variable) for key, variable in state.variables.items()}
    return {key: variable for key, variable in found.items() if variable}


def _set_by_others(variable: Variable) -> Variable | None:
    return variable.under if variable.source == "mqtt" else variable


def current(config: Config, state: State) -> Mapping[str, Variable]:
    """Every variable there is, as it counts now: those set, declared ones still at their initial value (source
    ``config``), and contacts (source ``contact``).

    Expired ones have their fallback for a formula, else their initial value; those without either are not there.
    """
    variables = {**initial(config), **state.variables}
    for key in [key for key, variable in state.variables.items() if variable.expired]:
        declared = config.declared.get(key, ("", _UNDECLARED))[1]
        if formula := declared.fallback or declared.initial:
            variables[key] = replace(variables[key], formula=formula)
        else:
            del variables[key]
    for key, contact in state.contacts.items():
        if key in config.contact_ids:
            since = contact.changed_at if contact.active else 0.0  # an idle contact is the source of nothing
            variables[key] = Variable(config.contact_ids[key], _CONTACT[contact.active], "contact", since)
    return variables


@lru_cache(maxsize=8)
def initial(config: Config) -> Mapping[str, Variable]:
    """The declared variables at their initial values, and the contacts as if none were active."""
    declared = {
        key: Variable(name, declared.initial, "config", 0.0)
        for key, (name, declared) in config.declared.items()
        if declared.initial is not None
    }
    return declared | {key: Variable(id, _CONTACT[False], "contact", 0.0) for key, id in config.contact_ids.items()}


def listing(snapshot: Snapshot) -> list[dict[str, object]]:
    """All variables as ``get_cm_vars`` shows them, at whichever edge: what each was set to, and what it is now.

    ``val`` and ``value`` are the same number; None with an ``error`` when there is none. ``until`` is when it runs out,
    ``note`` what must be said beside the value. Order as :func:`current`.
    """
    listed: list[dict[str, object]] = []
    for key, variable in current(snapshot.config, snapshot.state).items():
        constant = variable.formula.constant
        expression = variable.formula.text if constant is None else plain(constant)
        shown: dict[str, object] = {"name": variable.name, "expr": expression}
        ends = None if variable.expired else ends_at(snapshot.config, key, variable)
        if ends is not None:
            shown["until"] = instant(ends)
        if note := snapshot.decision.notes.get(key):
            shown["note"] = note
        value = snapshot.decision.values.get(key, Unknown("not evaluated yet"))
        if isinstance(value, Unknown):
            listed.append({**shown, "val": None, "value": None, "error": value.reason})
        else:
            listed.append({**shown, "val": plain(value), "value": plain(value)})
    return listed


def plain(number: float) -> float | int:
    """A number as people write it: 70, not 70.0."""
    return int(number) if number.is_integer() and abs(number) < 2**53 else number


class Names:
    """What each name in a formula stands for at one moment; call it with a folded name.

    ``variables`` decides which variables are seen: all current ones, or a hypothetical set.
    """

    def __init__(self, config: Config, state: State, variables: Mapping[str, Variable], now: Now) -> None:
        self._config = config
        self._state = state
        self._variables = variables
        self._now = now
        # Plain numbers are known from the start; the rest is found out when it is asked for, and so are those that were
        # set under wider bounds than there are now.
        self._known: dict[str, float | NoValue] = {
            key: variable.formula.constant
            for key, variable in variables.items()
            if variable.formula.constant is not None and not variable.expired and _fits(config, key, variable)
        }
        self.notes: dict[str, str] = {}
        """What must be said of a variable beside its value, by folded name."""

    def __call__(self, key: str) -> float:
        """The value of a folded name; raises :class:`~bridge.core.formulas.NoValue` with the reason."""
        if key not in self._known:
            self._settle(key)
        known = self._known[key]
        if isinstance(known, NoValue):
            raise NoValue(str(known))
        return known

    def value(self, formula: Formula) -> float | Unknown:
        """The value of a formula, or why it has none."""
        if formula.constant is not None:
            return formula.constant
        try:
            return evaluate(formula, self)
        except NoValue as error:
            return Unknown(str(error))

    def values(self) -> Mapping[str, float | Unknown]:
        """The value of every variable by folded name."""
        found: dict[str, float | Unknown] = {}
        for key in self._variables:
            try:
                found[key] = self(key)
            except NoValue as error:
                found[key] = Unknown(str(error))
        return found

    def _settle(self, key: str) -> None:
        """Find out a name and all it refers to, the innermost first: no recursion, each formula evaluated once."""
        path = [key]
        todo = [self._references(key)]
        while path:
            reference = next(todo[-1], None)
            if reference is None:
                todo.pop()
                done = path.pop()
                if done not in self._known:
                    self._known[done] = self._find(done)
            elif reference in path:
                circle = path[path.index(reference) :]
                spelled = " -> ".join(self._variables[k].name for k in (*circle, reference))
                self._known |= {member: NoValue(f"refers to itself: {spelled}") for member in circle}
            elif reference not in self._known:
                path.append(reference)
                todo.append(self._references(reference))

    def _references(self, key: str) -> Iterator[str]:
        variable = self._variables.get(key)
        return iter(sorted(variable.formula.names & self._variables.keys()) if variable else ())

    def _find(self, key: str) -> float | NoValue:
        try:
            if variable := self._variables.get(key):
                return self._variable(key, variable)
            head, dot, member = key.partition(".")
            if dot and head == "date":
                return _date(member, self._now)
            if dot and (device := self._config.by_key.get(head)):
                return self._member(device, member)
            if head == "gm" or key in balance.PREDEFINED:
                self._known[key] = NoValue(f"{key} refers to itself")  # until it is worked out
                return balance.value(key, self._config, self)
        except NoValue as error:
            return error
        if (gone := self._state.variables.get(key)) and gone.expired:
            return NoValue(f"{gone.name} has expired")
        if key in self._config.declared:
            return NoValue(f"{self._config.declared[key][0]} has not been set yet")
        return NoValue(f"unknown name {key}")

    def _variable(self, key: str, variable: Variable) -> float:
        value = evaluate(variable.formula, self)
        if variable.expired and variable.until is not None:
            self.notes[key] = f"expired at {instant(variable.until)}: {variable.formula.text} is what is left"
        if declared := self._config.declared.get(key):
            clamped = _clamped(value, declared[1])
            if clamped != value:
                self.notes[key] = f"{value:g} clamped to {_range(declared[1])}"
            return clamped
        return value

    def _member(self, device: DeviceConfig, member: str) -> float:
        """A quantity of a meter or wallbox, in the units of the formula language (mA, W, V, Wh, %)."""
        known = self._state.device(device.id)
        if member == "com_err":
            return float(not known.online)
        if member == "offered":
            offer = self._state.offers.get(device.id)
            if offer is None or offer.ceiling_a is None:
                raise NoValue(f"{device.id} has not been offered anything yet")
            return offer.ceiling_a * 1000
        if not fresh(device, known, self._now):
            raise NoValue(f"{device.id} is not read: {known.reason or 'no answer for too long'}")
        if member == "state":
            return _STATES.get(str(known.values.get("state")), _STATES["F"])
        if member == "current":
            lines = [known.values.get(quantity) for quantity in _MILLI.values()]
            if numbers := [float(line) for line in lines if isinstance(line, int | float)]:
                return max(numbers) * 1000
        quantity = _MILLI.get(member) or _SAME.get(member, member)
        reading = known.values.get(quantity)
        if not isinstance(reading, int | float):
            raise NoValue(f"{device.id} has no {member}")
        return reading * 1000 if member in _MILLI else float(reading)


def fresh(device: DeviceConfig, known: Device, now: Now) -> bool:
    """Whether a device's readings may still be believed: it answers, and did so not too long ago."""
    return known.online and now.mono - known.mono <= device.patience_s


def _date(member: str, now: Now) -> float:
    """The parts of local time, counted as the vendor counts them: months and weekdays from 0, Sunday first."""
    if member == "timestamp":
        return now.utc
    local = datetime.fromtimestamp(now.utc, now.zone or UTC)
    seconds = local.hour * 3600 + local.minute * 60 + local.second
    parts = {
        "year": local.year,
        "month": local.month - 1,
        "day": local.day,
        "weekday": local.isoweekday() % 7,
        "yearday": local.timetuple().tm_yday - 1,
        "hour": local.hour,
        "minute": local.minute,
        "second": local.second,
        "daysecond": seconds,
        "dayminute": seconds // 60,
        "dst": float(bool(local.dst())),
    }
    if member not in parts:
        raise NoValue(f"unknown name date.{member}; there are {', '.join(parts)}, timestamp")
    return float(parts[member])
