"""The nouns of the house: Config, Event, State, Decision, Snapshot. All frozen.

Units are part of the names: ``_w`` watts, ``_a`` amperes, ``_s`` seconds, ``_wh`` watt hours, ``_v`` volts.
``None`` means "not known" or "no limit"; ``0.0`` is a number like any other and, as a limit, means "nothing".
Instants: ``mono`` is the monotonic clock in seconds (ages), ``utc`` is Unix time in seconds (what people read).
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass, field
from datetime import tzinfo
from typing import Annotated, ClassVar, Literal, NamedTuple

from bridge.core.allowed import AtLeast, Between, Matching
from bridge.core.formulas import Formula, fold, is_name

PerLine = tuple[float, float, float]
"""One number for each line conductor: (L1, L2, L3)."""

Reading = float | str
"""One quantity as an edge delivers it: numbers in the unit its name ends with, ``state`` and texts as str."""

Values = Mapping[str, Reading]
"""Quantity name (``power_w``, ``current_l1_a``, ``state`` …) to reading."""


class Now(NamedTuple):
    """One moment, handed to the core by the hub; the core itself never looks at a clock."""

    mono: float
    utc: float
    zone: tzinfo | None = None
    """Time zone of the site for ``date.*`` in formulas; None: UTC."""


# --------------------------------------------------------------------------------------------------- Config


HostPort = Annotated[str, Matching(r"(\[[0-9A-Fa-f:.]+\]|[^:\s/]+):\d{1,5}", "host:port")]
Identifier = Annotated[str, Matching(r"[A-Za-z][A-Za-z0-9_]{0,31}", "a letter, then letters, digits or _, 32 at most")]
BrokerUrl = Annotated[
    str, Matching(r"mqtts?://([^@/\s]*@)?[^/@\s]+/?", "mqtt://[user:password@]host[:port] or mqtts://…")
]
Topic = Annotated[str, Matching(r"[^/+#\s]([^+#\s]*[^/+#\s])?", "a topic without +, # or a slash at its ends")]
Writer = Literal["smgw", "admin", "mqtt"]
Role = Literal["grid", "consumption", "production", "battery", "wallbox", "display"]


@dataclass(frozen=True, slots=True)
class HttpConfig:
    """The LAN door."""

    listen: HostPort = "0.0.0.0:8080"


@dataclass(frozen=True, slots=True)
class MqttConfig:
    """Where the topic tree goes. ``url`` None: the bridge runs a broker of its own on ``listen``."""

    url: BrokerUrl | None = None
    listen: HostPort = "127.0.0.1:1883"
    topic: Topic = "smgw-bridge"
    discovery: Annotated[str, Matching(r"[^+#\s]+", "a topic prefix, or false")] | Literal[False] = "homeassistant"


@dataclass(frozen=True, slots=True)
class GridConfig:
    """The house connection. Powers are limits in watts over all three lines together."""

    connection_power_w: Formula
    wallbox_power_w: Formula | None = None
    reserve_w: Formula | None = None
    failsafe_power_w: Annotated[float, AtLeast(0)] = 4200.0
    voltage: Annotated[float, Between(100, 400)] = 230.0


@dataclass(frozen=True, slots=True)
class VariableConfig:
    """A declared variable. Constants outside ``min``/``max`` are refused, formula values are clamped to them."""

    initial: Formula | None = None
    min: float | None = None
    max: float | None = None
    writers: tuple[Writer, ...] = ("smgw", "admin")

    def __post_init__(self) -> None:
        low = float("-inf") if self.min is None else self.min
        high = float("inf") if self.max is None else self.max
        if low > high:
            raise ValueError(f"min {low:g} is above max {high:g}")
        if self.initial and self.initial.constant is not None and not low <= self.initial.constant <= high:
            raise ValueError(f"initial {self.initial.text} is outside min and max")


@dataclass(frozen=True, slots=True)
class Limit:
    """A limit with the reason and the source it came from; ``amount`` in watts or amperes as its holder says."""

    amount: float
    reason: str
    source: str


@dataclass(frozen=True, slots=True)
class Capability:
    """What a wallbox model can do, read from its profile; amperes per line."""

    min_a: float = 6.0
    max_a: float = 32.0
    step_a: float = 0.1


@dataclass(frozen=True, slots=True)
class DeviceConfig:
    """What meters and wallboxes have in common. ``address`` is ``host[:port]``; a missing port is the profile's."""

    id: Identifier
    profile: str
    address: Annotated[str, Matching(r"(\[[0-9A-Fa-f:.]+\]|[^:\s/]+)(:\d{1,5})?", "host or host:port")]
    name: str = ""
    unit: Annotated[int, Between(0, 255)] | None = None
    poll_s: Annotated[float, Between(0.1, 3600)] = 1.0


@dataclass(frozen=True, slots=True)
class MeterConfig(DeviceConfig):
    """A meter. ``role`` grid: at the house connection, import positive."""

    role: Role = "display"


@dataclass(frozen=True, slots=True)
class WallboxConfig(DeviceConfig):
    """A wallbox (EVSE).

    ``phases`` is the number of line conductors (1 or 3, 2 for the rare box) or the list of house lines; ``rotation``
    says on which house line the box's own L1, L2, L3 sit. Both together give ``lines``: the house lines in the
    order of the box's own.
    """

    phases: Annotated[int, Between(1, 3)] | tuple[Annotated[int, Between(1, 3)], ...] = 3
    rotation: tuple[Annotated[int, Between(1, 3)], ...] = (1, 2, 3)
    min_current_a: Annotated[float, Between(6, 16)] = 6.0
    max_current_a: Formula | None = None
    max_power_w: Formula | None = None
    min_pause_s: Annotated[float, AtLeast(0)] = 0.0
    priority: int = 1
    capability: Capability = field(default=Capability(), init=False)
    lines: tuple[int, ...] = field(default=(), init=False)
    least_a: float = field(default=6.0, init=False)
    """The least that makes sense to offer: the minimum set up, or the model's own if that is higher."""
    most: Limit = field(default=Limit(32.0, "", "profile"), init=False)
    """What the model can do, as a limit in amperes."""

    def __post_init__(self) -> None:
        if sorted(self.rotation) != [1, 2, 3]:
            raise ValueError("rotation must name each of the lines 1, 2 and 3 once")
        if isinstance(self.phases, int):
            lines = self.rotation[: self.phases]
        else:
            lines = self.phases
            if not lines or len(set(lines)) != len(lines):
                raise ValueError("phases must be 1, 2, 3 or a list of different lines")
        object.__setattr__(self, "lines", lines)
        self._know(self.capability)

    def able(self, capability: Capability) -> WallboxConfig:
        """The same wallbox, knowing what its model can do."""
        known = copy(self)
        known._know(capability)
        return known

    def _know(self, capability: Capability) -> None:
        reason = f"{self.profile} can do {capability.max_a:g} A"
        object.__setattr__(self, "capability", capability)
        object.__setattr__(self, "least_a", max(self.min_current_a, capability.min_a))
        object.__setattr__(self, "most", Limit(capability.max_a, reason, "profile"))


@dataclass(frozen=True, slots=True)
class Config:
    """What was set up: one file, typed and validated (see :mod:`bridge.config`)."""

    grid: GridConfig
    site: str = ""
    http: HttpConfig = HttpConfig()
    mqtt: MqttConfig = MqttConfig()
    variables: Mapping[str, VariableConfig] = field(default_factory=dict)
    meters: tuple[MeterConfig, ...] = ()
    wallboxes: tuple[WallboxConfig, ...] = ()
    profiles: str | tuple[str, ...] = ()
    state_dir: str | None = None
    declared: Mapping[str, tuple[str, VariableConfig]] = field(default_factory=dict, init=False)
    """Folded name to (name as written, declaration)."""
    by_key: Mapping[str, MeterConfig | WallboxConfig] = field(default_factory=dict, init=False)
    """Folded id to meter or wallbox, for names in formulas."""

    def __post_init__(self) -> None:
        for name in self.variables:
            if not is_name(name):
                raise ValueError(f"variables: {name!r} is no name: letters, digits and _, no word of the formulas")
        object.__setattr__(self, "declared", {fold(name): (name, v) for name, v in self.variables.items()})
        if len(self.declared) < len(self.variables):
            raise ValueError("variables: two names differ in upper and lower case only")
        ids = [fold(device.id) for device in self.devices]
        if twice := sorted({device.id for device in self.devices if ids.count(fold(device.id)) > 1}):
            raise ValueError(f"meters and wallboxes: id used twice: {', '.join(twice)}")
        object.__setattr__(self, "by_key", dict(zip(ids, self.devices, strict=True)))

    @property
    def devices(self) -> tuple[MeterConfig | WallboxConfig, ...]:
        """Meters and wallboxes: everything the field edges talk to."""
        return (*self.meters, *self.wallboxes)


# --------------------------------------------------------------------------------------------------- Events


@dataclass(frozen=True, slots=True)
class Event:
    """What happened. An ``urgent`` event is decided on at once; others may wait for up to 20 ms of company."""

    urgent: ClassVar[bool] = False


@dataclass(frozen=True, slots=True)
class SetVariables(Event):
    """Variables were set: all of them in this one event, so that nobody ever sees half a set.

    Made by :func:`bridge.core.variables.accept`, which has checked names, writers, bounds and formulas.
    """

    variables: tuple[tuple[str, Formula], ...]
    clear: bool
    source: str
    urgent: ClassVar[bool] = True


@dataclass(frozen=True, slots=True)
class Read(Event):
    """A meter or wallbox was read: the quantities in ``values`` replace what was known of the same names."""

    device: str
    values: Values
    mono: float


@dataclass(frozen=True, slots=True)
class Link(Event):
    """A device became reachable or unreachable; ``reason`` says why it is not."""

    device: str
    online: bool
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Confirmed(Event):
    """A wallbox's setpoint was read back. ``revision``: of the newest snapshot whose setpoint the box has been sent.

    ``current_a`` is what the box itself now holds, which may differ from what was wanted.
    """

    wallbox: str
    current_a: float
    revision: int


@dataclass(frozen=True, slots=True)
class Stored(Event):
    """Everything up to receipt ``receipt`` is on disk (``error`` empty), or could not be stored."""

    receipt: int
    error: str = ""
    urgent: ClassVar[bool] = True


@dataclass(frozen=True, slots=True)
class Reconfigured(Event):
    """The configuration changed; edges compare old and new and follow."""

    config: Config
    urgent: ClassVar[bool] = True


# ---------------------------------------------------------------------------------------------------- State


@dataclass(frozen=True, slots=True)
class Variable:
    """A variable as it was set: by whom and when. ``name`` keeps its first spelling."""

    name: str
    formula: Formula
    source: str
    set_at: float


@dataclass(frozen=True, slots=True)
class Device:
    """What was last heard of a meter or wallbox. ``mono`` is when it was last read (-inf: never).

    ``previous`` are the values before the last reading of a current or power.
    """

    online: bool = False
    reason: str = "not reached yet"
    values: Values = field(default_factory=dict)
    mono: float = float("-inf")
    previous: Values = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Offer:
    """What a wallbox may be drawing because we offered it.

    ``confirmed_a`` was read back from the box; ``pending`` are (revision, amperes) of setpoints that may land or
    have landed since. What counts against the limit is the highest of them, :attr:`ceiling_a`.
    """

    confirmed_a: float | None = None
    confirmed_at: float | None = None
    confirmed_revision: int = -1
    pending: tuple[tuple[int, float], ...] = ()
    paused_mono: float = float("-inf")

    @property
    def ceiling_a(self) -> float | None:
        """The most this box may be drawing, in amperes per line; None: nothing is known of it."""
        if self.confirmed_a is None or not self.pending:
            return self.confirmed_a
        return max(self.confirmed_a, max(amperes for _, amperes in self.pending))


@dataclass(frozen=True, slots=True)
class ReceiptBox:
    """How far one wallbox has followed a set: ``state`` is confirmed, pending, unreachable or superseded."""

    wanted_a: float
    confirmed_a: float | None = None
    confirmed_at: float | None = None
    state: str = "pending"


@dataclass(frozen=True, slots=True)
class Receipt:
    """What came of one accepted set (``cause``), from the request to the register of every wallbox."""

    id: int
    cause: SetVariables
    received_at: float
    limit_w: float | None = None
    in_force_at: float | None = None
    stored_at: float | None = None
    error: str = ""
    wallboxes: Mapping[str, ReceiptBox] = field(default_factory=dict)
    settled: bool = False
    """Nothing of it can change any more."""


@dataclass(frozen=True, slots=True)
class State:
    """What we know. Keys of ``variables`` are folded names (see :func:`bridge.core.formulas.fold`)."""

    variables: Mapping[str, Variable] = field(default_factory=dict)
    devices: Mapping[str, Device] = field(default_factory=dict)
    other_load: tuple[tuple[float, PerLine], ...] = ()
    """What the house draws beside the wallboxes, seen in the last seconds: (mono, amperes per line)."""
    grid_sample: tuple[float, PerLine] | None = None
    """A reading of the grid meters that waits until every wallbox has been read after it."""
    offers: Mapping[str, Offer] = field(default_factory=dict)
    receipts: Mapping[int, Receipt] = field(default_factory=dict)
    last_receipt: int = 0
    stored_receipt: int = 0

    def receipt_of(self, cause: SetVariables) -> Receipt | None:
        """The receipt of this very set; None when it is too old to be kept."""
        return next((r for r in reversed([*self.receipts.values()]) if r.cause is cause), None)


# ------------------------------------------------------------------------------------------------- Decision


@dataclass(frozen=True, slots=True)
class Unknown:
    """There is no value, and this is why."""

    reason: str


@dataclass(frozen=True, slots=True)
class GridDecision:
    """The house connection now. ``state``: init, unlimited, limited or failsafe; ``power_w`` None: no grid meter."""

    limit_w: float
    state: str
    reason: str
    source: str
    power_w: float | None = None


@dataclass(frozen=True, slots=True)
class Setpoint:
    """What a wallbox shall offer its car, in amperes per line; 0.0 pauses it.

    ``limit_a`` is the tightest bound on this box alone, before sharing. ``wanted_a`` is its fair share; the
    setpoint stays below that while the room for it is not confirmed yet. Reason and source say what binds.
    """

    current_a: float
    limit_a: float
    wanted_a: float
    reason: str
    source: str


@dataclass(frozen=True, slots=True)
class Decision:
    """What follows from what we know. ``values`` are the variables' values by folded name."""

    values: Mapping[str, float | Unknown]
    grid: GridDecision
    setpoints: Mapping[str, Setpoint]
    notes: Mapping[str, str] = field(default_factory=dict)
    """What must be said of a variable beside its value (clamped), by folded name."""
    alarms: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Config, State and Decision at one moment. Readers always see a whole one; ``revision`` counts rounds."""

    config: Config
    state: State
    decision: Decision
    now: Now
    revision: int = 0
