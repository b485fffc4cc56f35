"""Events: what happened, as the edges and the hub tell the core. All frozen.

Units and instants as in :mod:`bridge.core.model`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from bridge.core.config import Config
from bridge.core.formulas import Formula

Reading = float | str
"""One quantity as an edge delivers it: numbers in the unit its name ends with, ``state`` and texts as str."""

Values = Mapping[str, Reading]
"""Quantity name (``power_w``, ``current_l1_a``, ``state`` …) to reading."""


@dataclass(frozen=True, slots=True)
class Event:
    """What happened. An ``urgent`` event is decided on at once; others may wait for up to 50 ms of company."""

    urgent: ClassVar[bool] = False


@dataclass(frozen=True, slots=True)
class SetVariables(Event):
    """Variables were set: all of them in this one event, so that nobody ever sees half a set.

    Made by :func:`bridge.core.variables.accept`, which has checked names, writers, bounds and formulas. ``peer`` is
    the SHA-256 of the certificate (hex) by which the sender was known, empty where there is none.
    """

    variables: tuple[tuple[str, Formula], ...]
    clear: bool
    source: str
    peer: str = ""
    ttl_s: Mapping[str, float] = field(default_factory=dict)
    """For how long the sender wants them to hold, by folded name; of those not named for ever."""
    urgent: ClassVar[bool] = True


@dataclass(frozen=True, slots=True)
class Read(Event):
    """A meter or wallbox was read: the quantities in ``values`` replace what was known of the same names.

    Those in ``gone`` it has not told for too long: nothing is known of them any more.
    """

    device: str
    values: Values
    mono: float
    gone: frozenset[str] = frozenset()


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
class PhasesConfirmed(Event):
    """A wallbox that can switch connects its car to so many ``phases``, 1 or 3; None: nobody can tell.

    ``revision``: of the newest snapshot the box has been sent when that was found out.
    """

    wallbox: str
    phases: int | None
    revision: int


@dataclass(frozen=True, slots=True)
class Stored(Event):
    """Everything up to receipt ``receipt`` is on disk (``error`` empty), or could not be stored."""

    receipt: int
    error: str = ""
    urgent: ClassVar[bool] = True


@dataclass(frozen=True, slots=True)
class Journaled(Event):
    """The journal is on disk up to entry ``through``; ``error`` says why the others are not.

    ``head`` is "number hash" of its newest entry; see :class:`bridge.core.records.journal.Journal`.
    """

    through: int
    head: str = ""
    error: str = ""


@dataclass(frozen=True, slots=True)
class SessionsStored(Event):
    """Charging sessions that have ended are on disk: those with these ``ids``."""

    ids: frozenset[int]


@dataclass(frozen=True, slots=True)
class Certificates(Event):
    """What the store holds now: name of a certificate to the end of its validity (UTC)."""

    not_after: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Reconfigured(Event):
    """The configuration changed; edges compare old and new and follow."""

    config: Config
    urgent: ClassVar[bool] = True


Switch = Literal["charging", "rules", "user_rules"]


@dataclass(frozen=True, slots=True)
class Override(Event):
    """Somebody at the wallbox wants it otherwise until the car leaves.

    Made by :func:`bridge.core.rules.overrides.accept`.

    ``off`` and ``on`` are switched, the others stay as they were. ``current_a`` None: stays, infinite: no limit.
    """

    wallbox: str
    source: str
    off: frozenset[Switch] = frozenset()
    on: frozenset[Switch] = frozenset()
    current_a: float | None = None
    urgent: ClassVar[bool] = True


@dataclass(frozen=True, slots=True)
class Capped(Event):
    """The back end of a wallbox limits it: the composite of its charging profiles (OCPP 1.6, 3.13; OCPP 2.0.1, K).

    ``current_a`` amperes on each line, None: no limit any more. ``until`` (UTC) it ends by itself, None: with the next.
    """

    wallbox: str
    current_a: float | None
    reason: str
    until: float | None = None
    urgent: ClassVar[bool] = True
