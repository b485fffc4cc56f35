"""The nouns of the house: State and Snapshot, and what they are made of. All frozen.

What changes at every reading is a tuple rather than a dataclass, which is quicker to make anew.
Events are in :mod:`bridge.core.events`, Decision in :mod:`bridge.core.decision`, Config in :mod:`bridge.core.config`.

Units are part of the names: ``_w`` watts, ``_a`` amperes, ``_s`` seconds, ``_wh`` watt hours, ``_v`` volts.
``None`` means "not known" or "no limit"; ``0.0`` is a number like any other and, as a limit, means "nothing".
Instants: ``mono`` is the monotonic clock in seconds (ages), ``utc`` is Unix time in seconds (what people read).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import tzinfo
from types import MappingProxyType
from typing import NamedTuple

from bridge.core.config import Config, WallboxConfig
from bridge.core.decision import Decision, GridDecision, Setpoint
from bridge.core.events import Capped, SetVariables, Switch, Values
from bridge.core.formulas import Formula
from bridge.core.grid.ramp import Release
from bridge.core.loads.phase import Phases
from bridge.core.records.journal import Journal
from bridge.core.records.session import Sessions
from bridge.core.rules.rule import Hold, RuleConfig, Surplus

PerLine = tuple[float, float, float]
"""One number for each line conductor: (L1, L2, L3)."""


class Now(NamedTuple):
    """One moment, handed to the core by the hub; the core itself never looks at a clock."""

    mono: float
    utc: float
    zone: tzinfo | None = None
    """Time zone of the site for ``date.*`` in formulas; None: UTC."""


@dataclass(frozen=True, slots=True)
class Variable:
    """A variable as it was set: by whom and when. ``name`` keeps its first spelling.

    ``until`` is when it runs out (UTC), as its sender wished; ``set_mono`` None: it was set before the bridge started.
    Of one that has ``expired``, ``until`` is when. ``under``: what others than MQTT had set when MQTT set it anew.
    """

    name: str
    formula: Formula
    source: str
    set_at: float
    until: float | None = None
    set_mono: float | None = None
    expired: bool = False
    under: Variable | None = None


@dataclass(frozen=True, slots=True)
class Contact:
    """A contact as it counts, since ``changed_at`` (UTC); ``reason`` says why it counts as active unseen.

    ``wanted`` is what its source says since ``wanted_mono``: it counts when it has held.
    """

    active: bool
    changed_at: float
    wanted: bool
    wanted_mono: float
    reason: str = ""


class Count(NamedTuple):
    """What an energy counter said, and when."""

    wh: float
    mono: float


class Counter(NamedTuple):
    """A wallbox's energy counter as far as it is believed, and what it counted since the car was connected.

    ``doubted`` does not follow from what is ``believed``, and the next reading has not borne it out yet. ``since`` is
    when the car was connected (None: no car); ``session_wh`` stays until the next one (None: no car seen yet).
    """

    believed: Count | None = None
    doubted: Count | None = None
    since: float | None = None
    session_wh: float | None = None
    counted_wh: float = 0.0
    """All that was counted since the bridge knows the counter: it never falls."""


class Device(NamedTuple):
    """What was last heard of a meter or wallbox. ``mono`` is when it was last read (-inf: never).

    ``before`` are the readings of a current or power just before the newest one, newest first, each with when it was
    taken. ``counter``: see :mod:`bridge.core.loads.counters`.
    """

    online: bool = False
    reason: str = "not reached yet"
    values: Values = MappingProxyType({})
    mono: float = float("-inf")
    before: tuple[tuple[float, Values], ...] = ()
    counter: Counter | None = None


class Load(NamedTuple):
    """What was seen of the other load at a place: ``recent`` (mono, amperes per line) of the last seconds.

    ``sample`` is a reading of the place's meters that waits until every wallbox there has been read after it.
    ``told`` is what the newest one made of it that told something; ``steady_mono`` when that was, cars holding still.
    """

    recent: tuple[tuple[float, PerLine], ...] = ()
    sample: tuple[float, PerLine] | None = None
    told: PerLine | None = None
    steady_mono: float = float("-inf")
    drawn: PerLine = (0.0, 0.0, 0.0)
    """What the meters showed last, wallboxes included."""
    likely: PerLine = (0.0, 0.0, 0.0)
    """That, less the most the wallboxes were seen to draw just before."""
    most: PerLine = (0.0, 0.0, 0.0)
    """That, less the least the wallboxes were seen to draw just before: it cannot be more."""
    steady: tuple[float, float] | None = None
    """Amperes of all lines together, of the meter and of the wallboxes, when all held still last."""
    against: int = 0
    """So many times in a row the meter fell when the wallboxes drew more, or the other way round."""


@dataclass(frozen=True, slots=True)
class Overdraft:
    """What the house drew beyond its limit: ``cut`` amperes per line are kept from the wallboxes ``until`` then.

    ``since``: an excess over the limits ``level`` (amperes on each line, on all lines together) that goes on.
    """

    level: tuple[float, float] = (float("inf"), float("inf"))
    since: float | None = None
    cut: PerLine = (0.0, 0.0, 0.0)
    until: float = float("-inf")


class Car(NamedTuple):
    """What is known of the car at a wallbox. ``since``: plugged in, ``drawing_since``: its current began to flow.

    ``lines`` are the house lines it was seen to use (None: not known yet), ``seen`` its highest current on each line
    since it began to draw. ``quiet_since``: it could charge and does not (None: it draws, or may not).
    ``peaks``: (beginning, highest amperes in it, highest in the one before) of a span of a few seconds.
    """

    since: float
    lines: tuple[int, ...] | None = None
    seen: PerLine = (0.0, 0.0, 0.0)
    drawing_since: float | None = None
    quiet_since: float | None = None
    asleep_at: float | None = None
    """When it was last seen not to have drawn for long, although it could; it has not since."""
    peaks: tuple[float, float, float] = (float("-inf"), 0.0, 0.0)


OBEYING_S = 6.0
"""A car has obeyed a lower current after so long, the reading that shows it included."""
FOLLOWING_S = 10.0
"""A car has followed a higher offer after so long, the reading that shows it included."""


class Offer(NamedTuple):
    """What a wallbox may be drawing because we offered it.

    ``confirmed_a`` was read back from the box; ``pending`` are (revision, amperes) of setpoints that may land or
    have landed since. What counts against the limit is the highest of them, :attr:`ceiling_a`.
    """

    confirmed_a: float | None = None
    confirmed_at: float | None = None
    pending: tuple[tuple[int, float], ...] = ()
    paused_mono: float = float("-inf")
    resumed_mono: float = float("-inf")
    """When it was last given current after a pause: the beginning of its turn."""
    raised_mono: float = float("-inf")
    """When it was last given more, or will be: a car needs some time to follow."""
    raised_from_a: float = 0.0
    """What it was offered before that, and before other rises just before."""
    due_mono: float = float("-inf")
    """When the newest setpoint was, or is, to be written: some boxes want a gap after the one before."""
    lowered: tuple[float, float] = (float("-inf"), 0.0)
    """(mono, amperes) of the ceiling before it was last lowered."""

    def lately_a(self, mono: float) -> float | None:
        """The most the car may be drawing now: it has up to five seconds to obey (IEC 61851-1, Annex A)."""
        ceiling_a = self.ceiling_a
        if ceiling_a is None or mono - self.lowered[0] > OBEYING_S:
            return ceiling_a
        return max(ceiling_a, self.lowered[1])

    @property
    def sent_a(self) -> float | None:
        """The newest of the setpoints, whether it has landed or not, in amperes per line."""
        return self.pending[-1][1] if self.pending else self.confirmed_a

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
class Overridden:
    """What is overridden at a wallbox until its car leaves: switched ``off``, limited to ``current_a`` on each line."""

    off: frozenset[Switch]
    current_a: float
    source: str
    set_at: float


_NEVER_SEEN, _NEVER_OFFERED, _NEVER_LOADED = Device(), Offer(), Load()


@dataclass(frozen=True)
class State:
    """What we know. Keys of ``variables`` are folded names (see :func:`bridge.core.formulas.fold`)."""

    variables: Mapping[str, Variable] = field(default_factory=dict)
    contacts: Mapping[str, Contact] = field(default_factory=dict)
    """By folded id, every one that is set up."""
    devices: Mapping[str, Device] = field(default_factory=dict)
    loads: Mapping[int, Load] = field(default_factory=dict)
    """What is drawn beside the wallboxes, by number of the place (:mod:`bridge.core.tree`) that has a meter."""
    overdraft: Overdraft = Overdraft()
    set_mono: float = float("-inf")
    """When somebody last set variables or overrode something: who does is not kept waiting for the end of a pause."""
    cars: Mapping[str, Car] = field(default_factory=dict)
    """By wallbox, while one is connected."""
    overrides: Mapping[str, Overridden] = field(default_factory=dict)
    """By wallbox, until its car leaves."""
    caps: Mapping[str, Capped] = field(default_factory=dict)
    """By wallbox, what its back end allows."""
    surplus: Surplus | None = None
    holds: Mapping[str, Mapping[RuleConfig, Hold]] = field(default_factory=dict)
    """By wallbox, of those charging rules that remember."""
    offers: Mapping[str, Offer] = field(default_factory=dict)
    phases: Mapping[str, Phases] = field(default_factory=dict)
    """By wallbox, of those that can switch."""
    receipts: Mapping[int, Receipt] = field(default_factory=dict)
    last_receipt: int = 0
    stored_receipt: int = 0
    journal: Journal = field(default_factory=Journal)
    sessions: Sessions = field(default_factory=Sessions)
    certificates: Mapping[str, float] = field(default_factory=dict)
    """Those in the store, with the end of their validity (UTC)."""
    started: Now | None = None
    """When the bridge started; None before its first round."""
    lot: float = 0.0
    """Drawn at the start, 0 to 1: what chance there is in delays (see :mod:`bridge.core.grid.ramp`)."""
    grid: GridDecision | None = None
    """As it was decided last."""
    releases: Mapping[str, Release] = field(default_factory=dict)
    """Limits that the grid side reduced, and those on their way back, by place in the configuration and unit."""

    def but(self, **changes: object) -> State:
        """The same with some fields changed, like :func:`dataclasses.replace` and eight times as quick: this is felt on
        the way from a set to the registers."""
        changed = object.__new__(State)
        changed.__dict__.update(self.__dict__)
        changed.__dict__.update(changes)
        return changed

    def device(self, id: str) -> Device:
        """A meter or wallbox; as if it had never been heard of when it has not."""
        return self.devices.get(id, _NEVER_SEEN)

    def offer(self, wallbox: str) -> Offer:
        """What a wallbox may be drawing; an empty offer when it was never offered anything."""
        return self.offers.get(wallbox, _NEVER_OFFERED)

    def load(self, place: int) -> Load:
        """The other load at a place; an empty one when nothing was ever seen of it."""
        return self.loads.get(place, _NEVER_LOADED)

    def receipt_of(self, cause: SetVariables) -> Receipt | None:
        """The receipt of this very set; None when it is too old to be kept."""
        return next((r for r in reversed([*self.receipts.values()]) if r.cause is cause), None)


class Present(NamedTuple):
    """A wallbox as it is, and the car there if any."""

    box: WallboxConfig
    device: Device
    offer: Offer
    car: Car | None = None


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
