"""The nouns of the house: Event, State, Decision, Snapshot. All frozen; Config is in :mod:`bridge.core.config`.

Units are part of the names: ``_w`` watts, ``_a`` amperes, ``_s`` seconds, ``_wh`` watt hours, ``_v`` volts.
``None`` means "not known" or "no limit"; ``0.0`` is a number like any other and, as a limit, means "nothing".
Instants: ``mono`` is the monotonic clock in seconds (ages), ``utc`` is Unix time in seconds (what people read).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import tzinfo
from typing import ClassVar, NamedTuple

from bridge.core.config import Config, WallboxConfig
from bridge.core.formulas import Formula

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


# --------------------------------------------------------------------------------------------------- Events


@dataclass(frozen=True, slots=True)
class Event:
    """What happened. An ``urgent`` event is decided on at once; others may wait for up to 50 ms of company."""

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
    """A device became reachable or unreachable; ``reason`` says why it is not, or what is wrong although it is."""

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


class Count(NamedTuple):
    """What an energy counter said, and when."""

    wh: float
    mono: float


@dataclass(frozen=True, slots=True)
class Counter:
    """A wallbox's energy counter as far as it is believed, and what it counted since the car was connected.

    ``doubted`` does not follow from what is ``believed``, and the next reading has not borne it out yet. ``since`` is
    when the car was connected (None: no car); ``session_wh`` stays until the next one (None: no car seen yet).
    """

    believed: Count | None = None
    doubted: Count | None = None
    since: float | None = None
    session_wh: float | None = None


@dataclass(frozen=True, slots=True)
class Device:
    """What was last heard of a meter or wallbox. ``mono`` is when it was last read (-inf: never).

    ``previous`` are the values before the last reading of a current or power, ``every_s`` how far apart the last two
    of these were: long for boxes that want pauses between requests. ``counter``: see :mod:`bridge.core.counters`.
    """

    online: bool = False
    reason: str = "not reached yet"
    values: Values = field(default_factory=dict)
    mono: float = float("-inf")
    previous: Values = field(default_factory=dict)
    every_s: float = 0.0
    counter: Counter | None = None


OBEYING_S = 6.0
"""A car has obeyed a lower current after so long, the reading that shows it included."""


@dataclass(frozen=True, slots=True)
class Offer:
    """What a wallbox may be drawing because we offered it.

    ``confirmed_a`` was read back from the box; ``pending`` are (revision, amperes) of setpoints that may land or
    have landed since. What counts against the limit is the highest of them, :attr:`ceiling_a`.
    """

    confirmed_a: float | None = None
    confirmed_at: float | None = None
    pending: tuple[tuple[int, float], ...] = ()
    paused_mono: float = float("-inf")
    lowered: tuple[float, float] = (float("-inf"), 0.0)
    """(mono, amperes) of the ceiling before it was last lowered."""

    def lately_a(self, mono: float) -> float | None:
        """The most the car may be drawing now: it has up to five seconds to obey (IEC 61851-1, Annex A)."""
        ceiling_a = self.ceiling_a
        if ceiling_a is None or mono - self.lowered[0] > OBEYING_S:
            return ceiling_a
        return max(ceiling_a, self.lowered[1])

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
    limit_w: float
    in_force_at: float
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
    unsteady: int = 0
    """So many of these in a row told nothing, because cars changed their current around them."""
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
class Limit:
    """A limit with the reason and the source it came from; ``amount`` in watts or amperes as its holder says."""

    amount: float
    reason: str
    source: str


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


class Present(NamedTuple):
    """A wallbox as it is."""

    box: WallboxConfig
    device: Device
    offer: Offer


class Roll(NamedTuple):
    """What follows from ``config``, ``devices`` and ``offers`` alone, and holds as long as these are the very same."""

    config: Config
    devices: Mapping[str, Device]
    offers: Mapping[str, Offer]
    idle: Mapping[str, Setpoint]
    """Of those wallboxes to which nothing can matter now."""
    present: tuple[Present, ...]
    """All others."""
    alarms: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Config, State and Decision at one moment. Readers always see a whole one; ``revision`` counts rounds."""

    config: Config
    state: State
    decision: Decision
    now: Now
    revision: int = 0
    roll: Roll | None = field(default=None, compare=False, repr=False)
    """Kept for the next round."""
