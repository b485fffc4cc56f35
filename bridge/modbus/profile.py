"""What a device profile says: the register map of one model and how to use it, as frozen dataclasses.

The dataclasses are the schema of the YAML files (:mod:`bridge.schema`); ``docs/profiles.md`` explains every key to
the writers of profiles. Addresses are 0-based as on the wire. Wherever a device makes a number depend on something
it says about itself (its firmware, a setting), a formula over the profile's points stands in the number's place.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

from bridge.core.allowed import AtLeast, Between, Passing
from bridge.core.config import Capability, Role, Switching
from bridge.core.formulas import Formula
from bridge.schema import BESIDES

Register = Annotated[int, Between(0, 65535)]
Unit = Annotated[int, Between(0, 255)]
Seconds = Annotated[float, AtLeast(0)]
Milliseconds = Annotated[int, Between(0, 60_000)]

NumberType = Literal["u16", "i16", "u32", "i32", "u64", "i64", "f32", "f64", "bool"]
TextType = Literal["str", "str_lsb", "str_utf16", "hex", "bcd", "ver"]
Type = Literal[
    "u16", "i16", "u32", "i32", "u64", "i64", "f32", "f64", "bool", "str", "str_lsb", "str_utf16", "hex", "bcd", "ver"
]
WIDTHS: Mapping[str, int] = {
    **dict.fromkeys(("u16", "i16", "bool"), 1),
    **dict.fromkeys(("u32", "i32", "f32"), 2),
    **dict.fromkeys(("u64", "i64", "f64"), 4),
}
"""Registers (for ``bool``: bits) a number takes; texts say it themselves with ``count``."""

VOLTS = 230.0
"""Between a line and neutral: turns the watts a box is told into amperes."""

ReadFunction = Literal[1, 2, 3, 4, "never"]
WriteFunction = Literal[5, 6, 15, 16]
WordOrder = Literal["be", "le"]
Framing = Literal["tcp", "rtu", "ascii"]
Poll = Literal["fast", "slow", "once"]


def _is_pattern(text: str) -> bool:
    try:
        re.compile(text)
    except re.error:
        return False
    return True


Pattern = Annotated[str, Passing(_is_pattern, "a regular expression")]


@dataclass(frozen=True, slots=True)
class Serial:
    """How a serial line is set up, 8 data bits always; used when the address names a serial device."""

    baud: Annotated[int, Between(100, 9_999_999)] = 9600
    parity: Literal["N", "E", "O"] = "N"
    stopbits: Literal[1, 2] = 1


@dataclass(frozen=True, slots=True)
class Connection:
    """How the device wants to be talked to. Devices that share a connection keep the widest gaps of them all.

    ``repeat``: each request is sent so often and only the last answer counts, for devices that sleep.
    """

    port: Annotated[int, Between(1, 65535)] = 502
    unit: Unit = 1
    framing: Framing = "tcp"
    serial: Serial = Serial()
    max_block: Annotated[int, Between(1, 125)] = 100
    allow_gaps: bool = False
    gap_ms: Milliseconds = 0
    write_gap_ms: Milliseconds = 0
    wait_after_connect_ms: Milliseconds = 0
    timeout_ms: Annotated[int, Between(50, 10_000)] = 1000
    repeat: Annotated[int, Between(1, 3)] = 1


@dataclass(frozen=True, slots=True)
class Defaults:
    """What holds for every point that does not say otherwise."""

    type: Type = "u16"
    read: ReadFunction = 3
    write: WriteFunction | None = None
    word_order: WordOrder = "be"
    na: Literal["usual"] | tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class SunSpecPoint:
    """Where a value lies in SunSpec's self-describing map: ``point`` of the first of ``model`` that the device has.

    ``index`` counts models of the same kind, as with several meters behind one inverter.
    """

    model: tuple[int, ...]
    point: str
    index: Annotated[int, Between(0, 20)] = 0


@dataclass(frozen=True, slots=True)
class Point:
    """One value of the device. Number = ``raw * scale + offset``; ``values`` turns raw values into words."""

    address: Register | None = None
    sunspec: SunSpecPoint | None = None
    type: Type | None = None
    count: Annotated[int, Between(1, 125)] | None = None
    read: ReadFunction | None = None
    write: WriteFunction | None = None
    word_order: WordOrder | None = None
    mask: Annotated[int, Between(1, 0xFFFFFFFF)] | None = None
    scale: float | Formula = 1.0
    offset: float = 0.0
    values: Mapping[str, float | str] = field(default_factory=dict)
    default: float | str | None = None
    na: Literal["usual"] | tuple[int, ...] | None = None
    poll: Poll = "fast"
    unit: Unit | None = None
    station: bool = False

    def __post_init__(self) -> None:
        if (self.address is None) == (self.sunspec is None):
            raise ValueError("needs either an address or sunspec")
        if self.default is not None and not self.values:
            raise ValueError("default says what stands for raw values missing in values, but there are no values")


@dataclass(frozen=True, slots=True)
class StateRule:
    """``when`` holds (left out: always): then the state is this letter, A to F as in IEC 61851-1."""

    then: Literal["A", "B", "C", "D", "E", "F"]
    when: Formula | None = None


@dataclass(frozen=True, slots=True)
class Write:
    """Write ``value`` (in the point's unit) to a point, if ``when`` holds or is left out."""

    point: str
    value: float | Formula
    when: Formula | None = None


@dataclass(frozen=True, slots=True)
class SetpointRule:
    """How a wallbox is told its charging current, and how it is paused and resumed.

    ``points``: usually one; several get the same value each (one per line). ``unit`` W: the amperes are turned into
    watts, A * 230 V * lines. ``step_a`` None: the scale of the point. ``pause`` empty: 0 is written to the points.
    ``read_back``: the point that shows what the box holds, if it is not the written one.
    ``min_interval_s``: the box does not want the same register written more often.
    ``max_age_s``: written again after so long although nothing changed, for boxes that forget.
    """

    points: tuple[str, ...]
    unit: Literal["A", "W"] = "A"
    min_a: Annotated[float, Between(0, 100)] = 6.0
    max_a: Annotated[float, Between(6, 500)] = 32.0
    step_a: Annotated[float, Between(0.001, 10)] | None = None
    pause: tuple[Write, ...] = ()
    resume: tuple[Write, ...] = ()
    read_back: str | None = None
    min_interval_s: Seconds = 0.0
    max_age_s: float | Formula | None = None

    def __post_init__(self) -> None:
        if not self.points:
            raise ValueError("points needs at least one point to write")
        if self.min_a > self.max_a:
            raise ValueError("min_a is above max_a")
        if self.resume and not self.pause:
            raise ValueError("resume without pause: what would it resume from?")


@dataclass(frozen=True, slots=True)
class PhasesRule:
    """How a wallbox is switched to ``one`` phase and to ``three``; it is paused before, always.

    ``read_back``: the point that shows 1 or 3 (left out: what it acknowledged counts). For ``settle_s`` nothing it says
    is believed; two switches are ``min_interval_s`` apart.
    """

    one: tuple[Write, ...]
    three: tuple[Write, ...]
    read_back: str | None = None
    settle_s: Seconds = 10.0
    min_interval_s: Seconds = 300.0

    def __post_init__(self) -> None:
        if not self.one or not self.three:
            raise ValueError("needs at least one write for one and for three phases")


@dataclass(frozen=True, slots=True)
class Failsafe:
    """The box's own watchdog: after ``timeout_s`` without a sign of life it offers ``current_a``.

    ``writes`` arm it; they are sent after connecting and only where the register reads differently, because many
    boxes keep these registers in flash.
    """

    current_a: Annotated[float, Between(0, 100)]
    timeout_s: Annotated[float, AtLeast(1)]
    writes: tuple[Write, ...] = ()


@dataclass(frozen=True, slots=True)
class Keepalive:
    """The sign of life: ``writes`` or a read of the point ``read``, every ``every_s`` seconds."""

    every_s: float | Formula
    writes: tuple[Write, ...] = ()
    read: str | None = None

    def __post_init__(self) -> None:
        if bool(self.writes) == bool(self.read):
            raise ValueError("needs either writes or read")


@dataclass(frozen=True, slots=True)
class Connectors:
    """A station with several connectors: connector n lies ``step`` registers after connector n-1.

    The profile shows connector 1; ``profile: ID#2`` in the configuration takes the second. Points marked
    ``station: true`` stay where they are.
    """

    step: Annotated[int, Between(1, 10_000)]
    max: Annotated[int, Between(1, 64)] = 2


@dataclass(frozen=True, slots=True)
class Profile:
    """One model of wallbox, meter, inverter or battery, or of a module with inputs."""

    vendor: str
    model: str
    kind: Literal["wallbox", "meter", "inverter", "battery", "io"]
    points: Annotated[Mapping[str, Point], Passing(bool, "at least one point")]
    id: str = field(default="", metadata=BESIDES)
    """The file's name without its ending; set by the loader."""
    notes: str = ""
    sources: tuple[str, ...] = ()
    confidence: Literal["high", "medium", "low"] = "medium"
    connection: Connection = Connection()
    defaults: Defaults = Defaults()
    connectors: Connectors | None = None
    derived: Mapping[str, Formula] = field(default_factory=dict)
    roles: Mapping[Role, Mapping[str, Formula]] = field(default_factory=dict)
    state: tuple[StateRule, ...] = ()
    identify: Mapping[str, Pattern] = field(default_factory=dict)
    init: tuple[Write, ...] = ()
    setpoint: SetpointRule | None = None
    phases: PhasesRule | None = None
    failsafe: Failsafe | None = None
    keepalive: Keepalive | None = None


def capability(profile: Profile, lines: int = 3) -> Capability | None:
    """What the core may ask of a wallbox of this model; None when it cannot be told, or not be controlled at all.

    Unless the profile says ``step_a``, it is 0.1 A for a float register, else what one unit of the register makes;
    watts count over the ``lines`` it is connected to, at 230 V.
    """
    rule = profile.setpoint
    if rule is None or (point := profile.points.get(rule.points[0])) is None:
        return None
    if rule.step_a is not None:
        step_a = rule.step_a
    elif (point.type or profile.defaults.type) in ("f32", "f64"):
        step_a = 0.1
    elif isinstance(point.scale, Formula):
        return None
    else:
        step_a = abs(point.scale) / (VOLTS * lines if rule.unit == "W" else 1.0)
    switch = Switching(profile.phases.settle_s, profile.phases.min_interval_s) if profile.phases else None
    return Capability(rule.min_a, rule.max_a, step_a, rule.min_interval_s, switch)
