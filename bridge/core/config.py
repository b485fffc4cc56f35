"""Config: what was set up. The field names are the keys of ``bridge.yaml``, the defaults are its defaults.

Units are part of the names: ``_w`` watts, ``_a`` amperes, ``_s`` seconds; None means "no limit". Read and checked by
:mod:`bridge.config`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass, field, replace
from typing import Annotated, Literal, Self

from bridge.core.allowed import AtLeast, Between, Matching, Passing
from bridge.core.formulas import Formula, fold, is_name
from bridge.core.gateway import CertificateName, Function, HostPort, SmgwConfig
from bridge.core.rules.rule import RuleConfig

Address = Annotated[
    str,
    Matching(
        r"((tcp|rtu|ascii)://)?(\[[0-9A-Fa-f:.]+\]|[^:\s/?]+)(:\d{1,5})?|(serial://)?/[^\s?]+(\?\S*)?",
        "host, host:port, rtu://host:port or /dev/ttyUSB0",
    ),
]
Identifier = Annotated[str, Matching(r"[A-Za-z][A-Za-z0-9_]{0,31}", "a letter, then letters, digits or _, 32 at most")]
BrokerUrl = Annotated[
    str, Matching(r"mqtts?://([^@/\s]*@)?[^/@\s]+/?", "mqtt://[user:password@]host[:port] or mqtts://…")
]
Topic = Annotated[str, Matching(r"[^/+#\s]([^+#\s]*[^/+#\s])?", "a topic without +, # or a slash at its ends")]
QuantityName = Annotated[str, Matching(r"[a-z][a-z0-9_]{0,31}", "a quantity such as power_w or current_l1_a")]
InputName = Annotated[str, Matching(r"input_[1-8]", "input_1 to input_8")]
VariableName = Annotated[str, Passing(is_name, "letters, digits and _, no digit first, no word of the formulas")]
Line = Annotated[int, Between(1, 3)]
MAX_TTL_S = 366 * 86_400.0
"""Nothing that is set for longer needs a time to run out."""
Writer = Literal["smgw", "admin", "mqtt"]
FedBy = Literal["modbus", "http", "mqtt", "expression", "gpio"]
Role = Literal["grid", "consumption", "production", "battery", "wallbox", "display"]


@dataclass(frozen=True, slots=True)
class HttpConfig:
    """The LAN door. With a ``certificate`` of the store it speaks HTTPS."""

    listen: HostPort = "0.0.0.0:8080"
    certificate: CertificateName | None = None


@dataclass(frozen=True, slots=True)
class MqttConfig:
    """Where the topic tree goes. ``url`` None: the bridge runs a broker of its own on ``listen``.

    ``tunnel``: the broker of ``url`` lies behind the gateway.
    """

    url: BrokerUrl | None = None
    tunnel: bool = False
    listen: HostPort = "127.0.0.1:1883"
    topic: Topic = "smgw-bridge"
    discovery: Annotated[str, Matching(r"[^+#\s]+", "a topic prefix, or false")] | Literal[False] = "homeassistant"

    def __post_init__(self) -> None:
        if self.tunnel and self.url is None:
            raise ValueError("tunnel needs the url of the broker behind the gateway")


@dataclass(frozen=True, slots=True)
class GridConfig:
    """The house connection, and what the wallboxes may draw of it.

    Powers are watts over all three lines together, currents amperes on each line. Where a power has no current beside
    it, nobody knows the fuses: then a third of it is also the limit of each line. ``controllable_power_w`` is what the
    wallboxes may draw from the grid; what the house feeds in meanwhile comes on top (BK6-22-300, Anlage 1, 2.3).
    ``slot_s`` is how long a wallbox may charge before it gives way to one that waits.
    """

    connection_power_w: Formula
    connection_current_a: Formula | None = None
    wallbox_power_w: Formula | None = None
    wallbox_current_a: Formula | None = None
    controllable_power_w: Formula | None = None
    reserve_w: Formula | None = None
    surplus_w: Formula | None = None
    failsafe_power_w: Annotated[float, AtLeast(0)] = 4200.0
    voltage: Annotated[float, Between(100, 400)] = 230.0
    max_imbalance_a: Annotated[float, AtLeast(6)] | None = None
    imbalance_of: Literal["wallboxes", "house"] = "wallboxes"
    return_ramp_s: Annotated[float, Between(0, 3600)] = 0.0
    return_delay_s: Annotated[float, Between(0, 3600)] = 0.0
    controllable_devices: Annotated[int, Between(0, 1000)] | None = None
    slot_s: Annotated[float, AtLeast(60)] = 900.0


@dataclass(frozen=True, slots=True)
class GroupConfig:
    """Wallboxes behind one feeder, and its limits; ``group`` names the group it is itself a part of.

    ``meter`` measures all that the feeder draws, wallboxes included; what else hangs there comes off the room.
    """

    id: Identifier
    name: str = ""
    group: Identifier | None = None
    power_w: Formula | None = None
    current_a: Formula | None = None
    meter: Identifier | None = None

    def __post_init__(self) -> None:
        if self.power_w is None and self.current_a is None:
            raise ValueError("a group needs power_w or current_a: what else would it be for?")


@dataclass(frozen=True, slots=True)
class VariableConfig:
    """A declared variable. Constants outside ``min``/``max`` are refused, formula values are clamped to them.

    Not set again within ``ttl_s``, or within the time the caller gave it, it has expired: ``fallback`` holds, else
    ``initial``. ``function`` None: see :mod:`bridge.core.grid.functions_of`.
    """

    initial: Formula | None = None
    min: float | None = None
    max: float | None = None
    writers: tuple[Writer, ...] = ("smgw", "admin")
    ttl_s: Annotated[float, Between(1, MAX_TTL_S)] | None = None
    fallback: Formula | None = None
    function: Function | None = None

    def __post_init__(self) -> None:
        low = float("-inf") if self.min is None else self.min
        high = float("inf") if self.max is None else self.max
        if low > high:
            raise ValueError(f"min {low:g} is above max {high:g}")
        for key, formula in (("initial", self.initial), ("fallback", self.fallback)):
            if formula and formula.constant is not None and not low <= formula.constant <= high:
                raise ValueError(f"{key} {formula.text} is outside min and max")


@dataclass(frozen=True, slots=True)
class ContactConfig:
    """A contact: a ripple control receiver, or a relay (W4 …) of a grid operator's control box.

    ``source`` is a formula over the inputs of devices, not 0 while the contact is closed. ``normally-open``: closed is
    active. ``normally-closed``: open is active, so that a broken wire is, too. In formulas the id is 1 or 0.
    """

    id: VariableName
    source: Formula
    wiring: Literal["normally-open", "normally-closed"] = "normally-open"
    debounce_s: Annotated[float, Between(0, 60)] = 0.1
    name: str = ""


@dataclass(frozen=True, slots=True)
class Switching:
    """How a wallbox model changes between one and three phases, read from its profile.

    For ``settle_s`` after a command nothing it says is believed; commands are ``min_interval_s`` apart.
    """

    settle_s: float = 10.0
    min_interval_s: float = 300.0


@dataclass(frozen=True, slots=True)
class Capability:
    """What a wallbox model can do, read from its profile; amperes per line. ``switch`` None: its phases are fixed."""

    min_a: float = 6.0
    max_a: float = 32.0
    step_a: float = 0.1
    gap_s: float = 0.0
    """Between two setpoints the box wants so much time."""
    switch: Switching | None = None


INPUTS: Mapping[str, FedBy] = {
    "http-input": "http",
    "mqtt-input": "mqtt",
    "expression": "expression",
    "gpio-input": "gpio",
}
"""Profiles of devices nobody polls, and where their readings come from. All others are read over Modbus."""


def fed_by(profile: str) -> FedBy:
    """Where the readings of a device with this profile come from; hyphens or underscores are the same."""
    return INPUTS.get(profile.lower().replace("_", "-"), "modbus")


_POLLED_PATIENCE_S = 5.0
_FED_PATIENCE_S = 60.0
_POLLS = 3


@dataclass(frozen=True, slots=True)
class SourceConfig:
    """Where one quantity of an ``mqtt-input`` comes from.

    ``path`` leads into a JSON payload (``ENERGY.Power``, ``phases.0``); without it the payload is the value. Texts are
    looked up in ``map`` first, numbers are multiplied by ``scale``.
    """

    topic: Topic
    path: str = ""
    scale: float = 1.0
    map: Mapping[str, str] = field(default_factory=dict)


def _says_current(template: str) -> bool:
    return "{current_a}" in template or "{current_ma}" in template


@dataclass(frozen=True, slots=True)
class SetpointConfig:
    """How an ``mqtt-input`` wallbox is told its current: what is published where, and where it says what it holds.

    In ``template`` the words ``{current_a}``, ``{current_ma}`` and ``{enabled}`` (``true``, or ``false`` for a pause)
    are replaced. ``step_a`` is the finest step the box understands, in amperes.
    """

    topic: Topic
    template: Annotated[str, Passing(_says_current, "a text with {current_a} or {current_ma}")] = "{current_a}"
    retain: bool = False
    step_a: Annotated[float, Between(0.1, 6)] = 0.1
    read_back: SourceConfig | None = None


@dataclass(frozen=True, slots=True)
class DeviceConfig:
    """What meters and wallboxes have in common. ``address`` is ``host[:port]``, with ``tcp://``, ``rtu://`` or
    ``ascii://`` in front if the profile's framing is not what is spoken there, or a serial line such as
    ``/dev/ttyUSB0``; what is left out, the profile says.

    ``proxy``: where others may read the device through the bridge, by Modbus/TCP.
    A device of one of the profiles in :data:`INPUTS` has no address. ``topics`` are those of an ``mqtt-input``.
    """

    id: Identifier
    profile: str
    address: Address = ""
    name: str = ""
    unit: Annotated[int, Between(0, 255)] | None = None
    poll_s: Annotated[float, Between(0.1, 3600)] = 1.0
    proxy: HostPort | None = None
    topics: Mapping[QuantityName, SourceConfig] = field(default_factory=dict)
    fed_by: FedBy = field(default="modbus", init=False)
    patience_s: float = field(default=_POLLED_PATIENCE_S, init=False)
    """How old its readings may be to be believed: three polls, as long as they take, but not less than 5 s, or 60 s
    when others feed it."""
    sweep_s: float = field(default=0.0, init=False)
    """So long its model takes for one poll."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "fed_by", fed_by(self.profile))
        least_s = _FED_PATIENCE_S if self.fed_by in ("http", "mqtt") else _POLLED_PATIENCE_S
        object.__setattr__(self, "patience_s", max(least_s, _POLLS * self.poll_s))

    def paced(self, sweep_s: float) -> Self:
        """The same device, knowing that its model takes so long for one poll, in seconds."""
        known = copy(self)
        object.__setattr__(known, "sweep_s", sweep_s)
        object.__setattr__(known, "patience_s", max(self.patience_s, _POLLS * sweep_s))
        return known


@dataclass(frozen=True, slots=True)
class MeterConfig(DeviceConfig):
    """A meter. ``role`` grid: at the house connection, import positive. ``values`` are those of an ``expression``.

    ``pins`` are the lines of a ``gpio-input``: quantity to the line's number at the chip.
    """

    role: Role = "display"
    values: Mapping[QuantityName, Formula] = field(default_factory=dict)
    pins: Mapping[InputName, Annotated[int, Between(0, 1023)]] = field(default_factory=dict)


def _different(lines: tuple[int, ...]) -> bool:
    return 0 < len(lines) == len(set(lines))


def _permutation(lines: tuple[int, ...]) -> bool:
    return sorted(lines) == [1, 2, 3]


@dataclass(frozen=True, slots=True)
class WallboxConfig(DeviceConfig):
    """A wallbox (EVSE).

    ``phases`` is the number of line conductors (1 or 3, 2 for the rare box) or the list of house lines; ``rotation``
    says on which house line the box's own L1, L2, L3 sit. Both together give ``lines``: the house lines in the
    order of the box's own.

    ``meter`` measures what the box draws, and nothing else; it is wired like the box.

    ``phase_switching``: whether the bridge may switch the box to one phase and back, or keeps it at one number. It is
    off unless asked for: every switch costs contactors a little life, and not every car likes it.
    """

    phases: Line | Annotated[tuple[Line, ...], Passing(_different, "a list of different lines")] = 3
    rotation: Annotated[tuple[Line, ...], Passing(_permutation, "each of the lines 1, 2 and 3 once")] = (1, 2, 3)
    min_current_a: Annotated[float, Between(6, 16)] = 6.0
    max_current_a: Formula | None = None
    max_power_w: Formula | None = None
    min_pause_s: Annotated[float, AtLeast(0)] | None = None
    phase_switching: Literal["auto", "off", 1, 3] = "off"
    priority: int = 1
    weight: Annotated[float, Between(0.1, 10)] = 1.0
    group: Identifier | None = None
    meter: Identifier | None = None
    rules: tuple[RuleConfig, ...] = ()
    setpoint: SetpointConfig | None = None
    capability: Capability = field(default=Capability(), init=False)
    lines: tuple[int, ...] = field(default=(), init=False)
    least_a: float = field(default=6.0, init=False)
    """The least that makes sense to offer: the minimum set up, or the model's own if that is higher."""

    def __post_init__(self) -> None:
        DeviceConfig.__post_init__(self)
        lines = self.rotation[: self.phases] if isinstance(self.phases, int) else self.phases
        object.__setattr__(self, "lines", lines)
        self._know(Capability(step_a=self.setpoint.step_a) if self.setpoint else self.capability)

    def able(self, capability: Capability) -> WallboxConfig:
        """The same wallbox, knowing what its model can do."""
        known = copy(self)
        known._know(capability)
        return known

    def on(self, lines: tuple[int, ...]) -> WallboxConfig:
        """The same wallbox while its car is connected to these of its lines only."""
        switched = copy(self)
        object.__setattr__(switched, "lines", lines)
        return switched

    @property
    def switches(self) -> Switching | None:
        """How its phases are switched; None: they are not."""
        able = self.phase_switching != "off" and len(self.lines) == len(self.rotation)
        return self.capability.switch if able else None

    def _know(self, capability: Capability) -> None:
        # Nobody wants to read 10.869 A: steps finer than 0.1 A are taken several at a time.
        coarse = math.ceil(0.1 / capability.step_a - 1e-6)
        capability = replace(capability, step_a=round(capability.step_a * max(1, coarse), 6))
        object.__setattr__(self, "capability", capability)
        object.__setattr__(self, "least_a", max(self.min_current_a, capability.min_a))


@dataclass(frozen=True, slots=True, eq=False)
class Config:
    """What was set up: one file, typed and validated (see :mod:`bridge.config`)."""

    grid: GridConfig
    site: str = ""
    http: HttpConfig = HttpConfig()
    mqtt: MqttConfig = MqttConfig()
    smgw: SmgwConfig | None = None
    variables: Mapping[VariableName, VariableConfig] = field(default_factory=dict)
    contacts: tuple[ContactConfig, ...] = ()
    meters: tuple[MeterConfig, ...] = ()
    groups: tuple[GroupConfig, ...] = ()
    wallboxes: tuple[WallboxConfig, ...] = ()
    profiles: str | tuple[str, ...] = ()
    state_dir: str | None = None
    declared: Mapping[str, tuple[str, VariableConfig]] = field(default_factory=dict, init=False)
    """Folded name to (name as written, declaration)."""
    by_key: Mapping[str, MeterConfig | WallboxConfig] = field(default_factory=dict, init=False)
    """Folded id to meter or wallbox, for names in formulas."""
    inputs: tuple[MeterConfig | WallboxConfig, ...] = field(default=(), init=False)
    """Those that are not read over Modbus, in their order."""
    contact_ids: Mapping[str, str] = field(default_factory=dict, init=False)
    """Folded id of each contact to the id as written."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "declared", {fold(name): (name, v) for name, v in self.variables.items()})
        object.__setattr__(self, "by_key", {fold(device.id): device for device in self.devices})
        object.__setattr__(self, "contact_ids", {fold(contact.id): contact.id for contact in self.contacts})
        object.__setattr__(self, "inputs", tuple(device for device in self.devices if device.fed_by != "modbus"))

    @property
    def devices(self) -> tuple[MeterConfig | WallboxConfig, ...]:
        """Meters and wallboxes: everything the field edges talk to."""
        return (*self.meters, *self.wallboxes)
