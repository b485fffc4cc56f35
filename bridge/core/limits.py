"""Limits: what each formula allows now, with reason and source, and what the house leaves for the wallboxes.

Unknown means smaller: where an input is missing there is a number all the same, and it is never above the healthy one.
"""

from __future__ import annotations

from functools import cache, lru_cache

from bridge.core.config import Config, MeterConfig, WallboxConfig
from bridge.core.formulas import Formula, NoValue, evaluate
from bridge.core.model import Device, GridDecision, Limit, Now, PerLine, State, Unknown, Variable
from bridge.core.otherload import flows, other_load
from bridge.core.variables import Names, current, fresh, initial


class Books:
    """Everything the limits of one round are worked out from: the names as they are, and two hypothetical worlds.

    * ``grid_side``: variables set over MQTT taken back to their initial values. Home automation may tighten what the
      grid side allows, never widen it, whatever formula the variables meet in.
    * ``unreduced``: every declared variable at its initial value. What lies below that is "limited".
    """

    def __init__(self, config: Config, state: State, now: Now) -> None:
        self.config = config
        self.state = state
        self.now = now
        self.meters = [meter for meter in config.meters if meter.role == "grid"]
        self.variables = current(config, state)
        self.names = Names(config, state, self.variables, now)
        self._grid_side: Names | None = None
        if any(variable.source == "mqtt" for variable in self.variables.values()):
            others = {key: v for key, v in self.variables.items() if v.source != "mqtt"}
            self._grid_side = Names(config, state, {**initial(config), **others}, now)

    def unreduced(self) -> float | Unknown:
        """What the house connection allows with every declared variable at its initial value."""
        always = _always_unreduced(self.config)
        if always is not None:
            return always
        return Names(self.config, self.state, initial(self.config), self.now).value(self.config.grid.connection_power_w)

    def limit(self, formula: Formula, unit: str) -> Limit | Unknown:
        """What a limit formula allows now, never negative."""
        value = self.names.value(formula)
        if isinstance(value, Unknown):
            return value
        reason, source = self._why(formula, value, unit)
        if self._grid_side is not None and formula.names:
            grid_side = self._grid_side.value(formula)
            if isinstance(grid_side, float) and grid_side < value:
                value, source = grid_side, "grid"
                reason = f"{formula.text} = {value:g} {unit} without variables set over MQTT: they may not widen it"
        if value < 0:
            return Limit(0.0, f"{reason}, and no limit is below 0", source)
        return Limit(value, reason, source)

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
            number = self.names.value(variable.formula)
            shown = "?" if isinstance(number, Unknown) else f"{number:g}"
            reason, between = f"{reason}{between}{variable.name} = {shown} ({variable.source})", ", "
            if youngest is None or variable.set_at > youngest.set_at:
                youngest = variable
        return reason, youngest.source if youngest else "config"


def connection(books: Books) -> GridDecision:
    """The limit of the house connection, from ``grid.connection_power_w`` or, without a value, the fail-safe."""
    grid = books.config.grid
    power_w = grid_power(books)
    limit = books.limit(grid.connection_power_w, "W")
    if isinstance(limit, Unknown):
        reason = f"fail-safe {grid.failsafe_power_w:g} W: {grid.connection_power_w.text} has no value: {limit.reason}"
        return GridDecision(grid.failsafe_power_w, "failsafe", reason, "config", power_w)
    unreduced = books.unreduced()
    limited = isinstance(unreduced, Unknown) or limit.amount < unreduced
    state = "limited" if limited and grid.connection_power_w.names else "unlimited"
    return GridDecision(limit.amount, state, limit.reason, limit.source, power_w)


@lru_cache(maxsize=8)
def _always_unreduced(config: Config) -> float | Unknown | None:
    """The everyday case of :meth:`Books.unreduced`, in which only plain numbers take part; None: it may change."""
    formula = config.grid.connection_power_w
    constants = {key: variable.formula.constant for key, variable in initial(config).items()}
    numbers = {key: number for key, number in constants.items() if number is not None}
    if not numbers.keys() >= formula.names:
        return None
    try:
        return evaluate(formula, numbers.__getitem__)
    except NoValue as error:
        return Unknown(str(error))


def wallbox(books: Books, box: WallboxConfig) -> Limit:
    """The tightest limit on one wallbox alone, in amperes per line."""
    tightest = able(box)
    if box.max_current_a is None and box.max_power_w is None:
        return tightest
    for formula, unit, per_ampere in (
        (box.max_current_a, "A", 1.0),
        (box.max_power_w, "W", books.config.grid.voltage * len(box.lines)),
    ):
        if formula is None:
            continue
        limit = books.limit(formula, unit)
        if isinstance(limit, Unknown):
            return Limit(0.0, f"paused: {formula.text} has no value: {limit.reason}", "config")
        amperes = limit.amount / per_ampere
        if amperes < tightest.amount:
            tightest = Limit(amperes, limit.reason, limit.source)
    return tightest


def able(box: WallboxConfig) -> Limit:
    """What the model of a wallbox can do, in amperes per line."""
    return _model(box.profile, box.capability.max_a)


@cache
def _model(profile: str, max_a: float) -> Limit:
    """What the model can do; the same object each round."""
    return Limit(max_a, f"{profile} can do {max_a:g} A", "profile")


def room(books: Books, grid: GridDecision) -> tuple[PerLine, Limit]:
    """What the wallboxes may draw together, in amperes per line, and the limit that binds them (in watts)."""
    config, state = books.config, books.state
    three = 3 * config.grid.voltage
    reserve_w = 0.0
    binding = Limit(grid.limit_w, grid.reason, grid.source)
    if config.grid.reserve_w is not None:
        value = books.names.value(config.grid.reserve_w)
        if isinstance(value, Unknown):
            return (0.0, 0.0, 0.0), Limit(0.0, f"the reserve has no value: {value.reason}", "config")
        reserve_w = max(0.0, value)
    house_a = (grid.limit_w - reserve_w) / three
    lines: PerLine = (house_a, house_a, house_a)
    meters = books.meters
    if meters:
        other = other_load(state)
        silent = [meter for meter in meters if not _tells(books, meter)]
        if silent:
            # Nobody knows what the house draws: at most the fail-safe, and not more than when it was last known.
            house_a = min(house_a, config.grid.failsafe_power_w / three)
            binding = Limit(config.grid.failsafe_power_w, f"grid meter {silent[0].id} is not read", "config")
        free = [min(house_a, line - load) for line, load in zip(lines, other, strict=True)]
        lines = (free[0], free[1], free[2])
    if config.grid.wallbox_power_w is not None:
        together = books.limit(config.grid.wallbox_power_w, "W")
        if isinstance(together, Unknown):
            return (0.0, 0.0, 0.0), Limit(0.0, f"wallbox_power_w has no value: {together.reason}", "config")
        if together.amount / three < max(lines):
            share = together.amount / three
            lines = (min(lines[0], share), min(lines[1], share), min(lines[2], share))
            binding = together
    return lines, binding


def _tells(books: Books, meter: MeterConfig) -> bool:
    """Whether a grid meter is read and says what flows."""
    known = books.state.devices.get(meter.id, Device())
    return fresh(meter, known, books.now) and flows(known.values)


def grid_power(books: Books) -> float | None:
    """The power at the house connection in watts, import positive; None without a grid meter that is read."""
    total = 0.0
    for meter in books.meters:
        known = books.state.devices.get(meter.id, Device())
        power = known.values.get("power_w")
        if not fresh(meter, known, books.now) or not isinstance(power, int | float):
            return None
        total += power
    return total if books.meters else None
