"""Limits: what each formula allows now, with reason and source.

Unknown means smaller: where an input is missing there is a number all the same, and it is never above the healthy one.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, lru_cache
from operator import attrgetter

from bridge.core.config import Config, WallboxConfig
from bridge.core.decision import GridDecision, Limit, Unknown
from bridge.core.formulas import Formula, NoValue, evaluate
from bridge.core.grid import ramp, standing
from bridge.core.grid.ramp import Release
from bridge.core.model import Device, Now, State, Variable
from bridge.core.rules import overrides, rules
from bridge.core.rules.rules import View
from bridge.core.variables import Names, current, fresh, initial, without_mqtt


class Books:
    """Everything the limits of one round are worked out from: the names as they are, and two hypothetical worlds.

    * ``grid_side``: variables set over MQTT taken back to what others set, else to their initial values. Home
      automation may tighten what the grid side allows, never widen it, whatever formula the variables meet in.
    * ``unreduced``: every declared variable at its initial value. What lies below that is "limited".
    """

    def __init__(self, config: Config, state: State, now: Now) -> None:
        self.config = config
        self.state = state
        self.now = now
        self.meters = [meter for meter in config.meters if meter.role == "grid"]
        self.variables = current(config, state)
        self.names = Names(config, state, self.variables, now)
        self.releases: dict[str, Release] = {}
        """How far limits have come back, for the next round; see :meth:`limit`."""
        self._grid_side: Names | None = None
        if any(variable.source == "mqtt" for variable in self.variables.values()):
            self._grid_side = Names(config, state, current(config, state.but(variables=without_mqtt(state))), now)

    def reduced(self, formula: Formula, amount: float) -> bool:
        """Whether that is less than a formula allows with every declared variable at its initial value."""
        if not formula.names:
            return False
        unreduced = _always_unreduced(self.config, formula)
        if unreduced is None:
            unreduced = Names(self.config, self.state, initial(self.config), self.now).value(formula)
        return isinstance(unreduced, Unknown) or amount < unreduced

    def limit(self, formula: Formula, unit: str) -> Limit | Unknown:
        """What a limit formula allows now, never negative; a limit of the grid side comes back gradually."""
        value = self.names.value(formula)
        if isinstance(value, Unknown):
            key = _key(self.config, formula, unit)
            if release := self.state.releases.get(key):
                self.releases[key] = release
            return value
        reason, source = self._why(formula, value, unit)
        grid_side: float | Unknown = value
        if self._grid_side is not None and formula.names:
            grid_side = self._grid_side.value(formula)
            if isinstance(grid_side, float) and grid_side < value:
                value, source = grid_side, "grid"
                reason = f"{formula.text} = {value:g} {unit} without variables set over MQTT: they may not widen it"
        limit = Limit(value, reason, source)
        if value < 0:
            limit = Limit(0.0, f"{reason}, and no limit is below 0", source)
        if formula in _grid_side(self.config):
            return self._eased(formula, unit, limit, value if isinstance(grid_side, Unknown) else max(0.0, grid_side))
        return limit

    def _eased(self, formula: Formula, unit: str, limit: Limit, grid_side: float) -> Limit:
        """The limit while it is still coming back; what home automation does to it is not eased."""
        grid, state, mono = self.config.grid, self.state, self.now.mono
        if not (grid.return_ramp_s or grid.return_delay_s):
            return limit
        key = _key(self.config, formula, unit)
        before = state.releases.get(key)
        if before is None and state.grid is None:
            failsafe = grid.failsafe_power_w if unit == "W" else grid.failsafe_power_w / grid.voltage / 3
            changed = max((v.until or v.set_at if v.expired else v.set_at for v in state.variables.values()), default=0)
            rise_s = grid.return_ramp_s + grid.return_delay_s
            before = ramp.restarted(grid_side, failsafe, self.now.utc - changed, mono, rise_s)
        delay_s = ramp.delay_s(grid.return_delay_s, state.lot, state.last_receipt)
        release = ramp.eased(before, grid_side, self.reduced(formula, grid_side), mono, grid.return_ramp_s, delay_s)
        if release is None:
            return limit
        self.releases[key] = release
        if release.amount >= limit.amount:
            return limit
        reason = f"{limit.reason}, to which it comes back gradually"
        return limit._replace(amount=release.amount, reason=reason, ordered=limit.amount)

    def amperes(self, formula: Formula) -> Limit:
        """What a formula of a current limit allows now; nothing when it has no value."""
        limit = self.limit(formula, "A")
        if isinstance(limit, Unknown):
            return Limit(0.0, f"{formula.text} has no value: {limit.reason}", "config")
        return limit

    def reserve_w(self, formula: Formula) -> float | Unknown:
        """What is kept free, in watts; variables set over MQTT may keep more free, never less."""
        value = self.names.value(formula)
        if isinstance(value, Unknown) or self._grid_side is None:
            return value
        without = self._grid_side.value(formula)
        return value if isinstance(without, Unknown) else max(value, without)

    def _why(self, formula: Formula, value: float, unit: str) -> tuple[str, str]:
        """The reason in words, and the source: who set the youngest variable that takes part."""
        if not formula.names:
            return f"{formula.text} {unit} as set up", "config"
        reason, between = f"{formula.text} = {value:g} {unit}", " with "
        youngest: Variable | None = None
        for key in sorted(formula.names):
            variable = self.variables.get(key)
            if variable is None:
                continue
            try:
                shown = f"{self.names(key):g}"  # as it counts: not below its min, not above its max
            except NoValue:
                shown = "?"
            reason, between = f"{reason}{between}{variable.name} = {shown} ({variable.source})", ", "
            if youngest is None or variable.set_at > youngest.set_at:
                youngest = variable
        return reason, youngest.source if youngest else "config"


def connection(books: Books) -> GridDecision:
    """The limit of the house connection, from ``grid.connection_power_w`` or, without a value, the fail-safe."""
    grid = books.config.grid
    power_w = grid_power(books)
    limit = books.limit(grid.connection_power_w, "W")
    fuse = books.amperes(grid.connection_current_a) if grid.connection_current_a else None
    fuse_a = fuse.amount if fuse else None
    reduced = _reduced(books, limit, fuse)
    if isinstance(limit, Unknown):
        held = books.releases.get(_key(books.config, grid.connection_power_w, "W"))
        limit_w = min(grid.failsafe_power_w, held.amount) if held else grid.failsafe_power_w
        reason = f"fail-safe {limit_w:g} W: {grid.connection_power_w.text} has no value: {limit.reason}"
        decision = GridDecision(limit_w, "failsafe", reason, "config", power_w, fuse_a)
    else:
        stands = "limited" if reduced else "unlimited"
        decision = GridDecision(limit.amount, stands, limit.reason, limit.source, power_w, fuse_a)
    return standing.told(books.config, books.state, books.variables, _names(books.config), decision, reduced, books.now)


def _reduced(books: Books, house: Limit | Unknown, fuse: Limit | None) -> tuple[Limit, ...]:
    """What the grid side leaves of the house connection and for its controllable devices, in watts, where not all."""
    grid = books.config.grid
    reduced = []
    if isinstance(house, Limit) and books.reduced(grid.connection_power_w, house.amount):
        reduced.append(house)
    if grid.connection_current_a and fuse and books.reduced(grid.connection_current_a, fuse.amount):
        ordered = None if fuse.ordered is None else fuse.ordered * 3 * grid.voltage
        reduced.append(Limit(fuse.amount * 3 * grid.voltage, f"on each line {fuse.reason}", fuse.source, ordered))
    if grid.controllable_power_w:
        limit = books.limit(grid.controllable_power_w, "W")
        if isinstance(limit, Limit) and books.reduced(grid.controllable_power_w, limit.amount):
            reduced.append(limit._replace(reason=f"for what wallboxes draw from the grid {limit.reason}"))
    return tuple(reduced)


def _key(config: Config, formula: Formula, unit: str) -> str:
    """What is remembered of a limit goes on with its place, also when its formula is written anew."""
    return f"{_grid_side(config).get(formula, formula.text)} {unit}"


@lru_cache(maxsize=8)
def _grid_side(config: Config) -> Mapping[Formula, str]:
    """The limits by which a grid operator may reduce a house, with their keys in the configuration."""
    grid = config.grid
    limits = {
        "wallbox_power_w": grid.wallbox_power_w,
        "wallbox_current_a": grid.wallbox_current_a,
        "controllable_power_w": grid.controllable_power_w,
        "connection_current_a": grid.connection_current_a,
        "connection_power_w": grid.connection_power_w,
    }
    return {formula: key for key, formula in limits.items() if formula and formula.names}


@lru_cache(maxsize=8)
def _names(config: Config) -> frozenset[str]:
    """The names they are worked out from."""
    return frozenset().union(*(formula.names for formula in _grid_side(config)))


@lru_cache(maxsize=32)
def _always_unreduced(config: Config, formula: Formula) -> float | Unknown | None:
    """The everyday case of :meth:`Books.reduced`, in which only plain numbers take part; None: it may change."""
    constants = {key: variable.formula.constant for key, variable in initial(config).items()}
    numbers = {key: number for key, number in constants.items() if number is not None}
    if not numbers.keys() >= formula.names:
        return None
    try:
        return evaluate(formula, numbers.__getitem__)
    except NoValue as error:
        return Unknown(str(error))


def wallbox(books: Books, box: WallboxConfig, device: Device, lines: int) -> Limit:
    """The tightest limit on one wallbox alone, in amperes on each of the ``lines`` its car uses."""
    caps = [able(box)]
    cable_a = device.values.get("cable_a")
    if isinstance(cable_a, float) and cable_a > 0:
        caps.append(Limit(cable_a, f"the cable is made for {cable_a:g} A", "wallbox"))
    if box.max_current_a is not None:
        caps.append(books.amperes(box.max_current_a))
    if box.max_power_w is not None:
        caps.append(_watts(books, box.max_power_w, lines))
    if (told := books.state.caps.get(box.id)) and told.current_a is not None and _holds(told.until, books.now):
        caps.append(Limit(told.current_a, told.reason, "ocpp"))
    if override := overrides.cap(books.state, box):
        caps.append(override)
    if box.rules:
        view = View(books.config, books.state, books.names, books.now)
        caps += filter(None, [rules.cap(view, box, lines)])
    return min(caps, key=attrgetter("amount")) if len(caps) > 1 else caps[0]


def _holds(until: float | None, now: Now) -> bool:
    return until is None or now.utc < until


def _watts(books: Books, formula: Formula, lines: int) -> Limit:
    """A power limit as amperes on each of so many lines."""
    limit = books.limit(formula, "W")
    if isinstance(limit, Unknown):
        return Limit(0.0, f"{formula.text} has no value: {limit.reason}", "config")
    return limit._replace(amount=limit.amount / books.config.grid.voltage / lines)


def able(box: WallboxConfig) -> Limit:
    """What the model of a wallbox can do, in amperes per line."""
    return _model(box.profile, box.capability.max_a)


@cache
def _model(profile: str, max_a: float) -> Limit:
    """What the model can do; the same object each round."""
    return Limit(max_a, f"{profile} can do {max_a:g} A", "profile")


def grid_power(books: Books) -> float | None:
    """The power at the house connection in watts, import positive; None without a grid meter that is read."""
    total = 0.0
    for meter in books.meters:
        known = books.state.device(meter.id)
        power = known.values.get("power_w")
        if not fresh(meter, known, books.now) or not isinstance(power, int | float):
            return None
        total += power
    return total if books.meters else None
