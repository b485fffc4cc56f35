"""The nouns of charging rules: Config of one (``wallboxes[].rules`` in ``bridge.yaml``), and what must be remembered.

How rules are read is told in :mod:`bridge.core.rules.rules`, how surplus is shared in :mod:`bridge.core.rules.surplus`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Literal

from bridge.core.allowed import AtLeast, Between, Matching
from bridge.core.formulas import Formula

Clock = Annotated[str, Matching(r"([01]\d|2[0-3]):[0-5]\d|24:00", "HH:MM in quotes, 00:00 to 24:00")]
Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]

DAYS: tuple[Day, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
"""In the order of :meth:`datetime.date.weekday`."""

_SURPLUS_UNDERCUT_S = 300.0
"""A cloud passes in less; recommended by the vendor of the rules we are compatible with."""


@dataclass(frozen=True, slots=True)
class RuleConfig:
    """One rule: conditions, all of which must hold, and exactly one action.

    Conditions: ``when`` is above 0; the weekday is one of ``days`` (none: any); the local time is between ``from_``
    and ``to``. A window that ends before it begins runs past midnight and belongs to the day on which it began.

    Actions: ``current_a`` on each line, ``power_w`` over all lines of the wallbox, or ``surplus``: ``factor`` times
    what would be fed in otherwise, but at least ``min_current_a``, once that was enough for ``start_s``.

    ``undercut_s``: so long after ``when`` or the surplus has ceased, the wallbox keeps its minimum current. None: 300 s
    with ``surplus``, else 0.
    """

    name: str = ""
    when: Formula | None = None
    days: tuple[Day, ...] = ()
    from_: Clock | None = None
    to: Clock | None = None
    current_a: Formula | None = None
    power_w: Formula | None = None
    surplus: bool = False
    min_current_a: Annotated[float, AtLeast(0)] | None = None
    factor: Annotated[float, Between(0.1, 10)] = 1.0
    start_s: Annotated[float, AtLeast(0)] = 60.0
    undercut_s: Annotated[float, AtLeast(0)] | None = None

    def __post_init__(self) -> None:
        actions = (self.current_a is not None) + (self.power_w is not None) + self.surplus
        if actions != 1:
            raise ValueError("a rule needs exactly one of current_a, power_w and surplus: true")
        if self.from_ is not None and self.from_ == self.to:
            raise ValueError(f"from and to are both {self.to}: leave them out for the whole day")
        if not self.surplus and (self.min_current_a is not None or self.factor != 1.0 or self.start_s != 60.0):
            raise ValueError("min_current_a, factor and start_s go with surplus: true")
        if self.undercut_s and not self.surplus and self.when is None:
            raise ValueError("undercut_s goes with when or surplus: days and times end on time")

    @property
    def lasts_s(self) -> float:
        """How long the rule stays in force after it has ceased to hold."""
        if self.undercut_s is None:
            return _SURPLUS_UNDERCUT_S if self.surplus else 0.0
        return self.undercut_s

    @property
    def remembers(self) -> bool:
        """Whether what it allows depends on what was before."""
        return self.surplus or self.lasts_s > 0

    def covers(self, local: datetime) -> bool:
        """Whether days and times hold at a moment of the site's clock.

        The clock on the wall decides: what it skips in spring does not happen, what it shows twice in autumn holds
        twice.
        """
        if self.from_ is None and self.to is None:
            return self._on(local.weekday())
        clock = f"{local.hour:02}:{local.minute:02}"
        begins, ends = self.from_ or "00:00", self.to or "24:00"
        today = local.weekday()
        if begins < ends:
            return begins <= clock < ends and self._on(today)
        return (clock >= begins and self._on(today)) or (clock < ends and self._on(today - 1))

    def _on(self, weekday: int) -> bool:
        return not self.days or DAYS[weekday % 7] in self.days

    def __str__(self) -> str:
        """The conditions in words, or the name."""
        if self.name:
            return self.name
        words = [self.when.text] if self.when else []
        if self.days or self.from_ or self.to:
            clock = f"{self.from_ or '00:00'}-{self.to or '24:00'}" if self.from_ or self.to else ""
            words.append(" ".join(filter(None, (", ".join(self.days), clock))))
        return " and ".join(words) or "always"


@dataclass(frozen=True, slots=True)
class Hold:
    """How a rule did at a wallbox: it holds ``since`` then (inf: it does not), was in force ``last``, and then gave
    ``gave_a`` amperes per line. Both moments are on the monotonic clock."""

    since: float
    last: float = float("-inf")
    gave_a: float = 0.0


@dataclass(frozen=True, slots=True)
class Surplus:
    """What the wallboxes that charge with surplus may share, in watts and smoothed, at ``mono``.

    ``power_w`` None: nobody knows, for this ``reason``. ``shares_a``: what each wallbox may have of it, in amperes on
    each line its car uses; 0 where that is less than it needs. ``offered_w``: what each could have had in watts.
    """

    mono: float
    power_w: float | None = None
    shares_a: Mapping[str, float] = field(default_factory=dict)
    reason: str = ""
    offered_w: Mapping[str, float] = field(default_factory=dict)
