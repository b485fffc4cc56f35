"""What a configured value may be: used as ``Annotated[float, Between(0, 100)]`` beside the field it guards."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol


class Allowed(Protocol):
    """A rule for one value. ``words`` says in plain words what is allowed."""

    @property
    def words(self) -> str:
        """What is allowed, to be read after 'allowed:'."""

    def fits(self, value: object) -> bool:
        """Whether the value keeps the rule; the value's type has been checked before."""


@dataclass(frozen=True)
class Between:
    """A number from ``low`` to ``high``, both included."""

    low: float
    high: float

    @property
    def words(self) -> str:
        """The range."""
        return f"{self.low:.10g} to {self.high:.10g}"

    def fits(self, value: object) -> bool:
        """Whether the number is in the range."""
        return isinstance(value, int | float) and self.low <= value <= self.high


@dataclass(frozen=True)
class AtLeast:
    """A number not below ``low``."""

    low: float

    @property
    def words(self) -> str:
        """The lower end."""
        return f"{self.low:g} or more"

    def fits(self, value: object) -> bool:
        """Whether the number is large enough."""
        return isinstance(value, int | float) and value >= self.low


@dataclass(frozen=True)
class Matching:
    """A text that matches ``pattern`` as a whole; ``words`` describes the pattern."""

    pattern: str
    words: str

    def fits(self, value: object) -> bool:
        """Whether the text matches."""
        return isinstance(value, str) and re.fullmatch(self.pattern, value) is not None


@dataclass(frozen=True)
class Passing:
    """A value for which ``test`` is true; ``words`` describes the test."""

    test: Callable[[Any], bool]
    words: str

    def fits(self, value: object) -> bool:
        """Whether the value passes."""
        return self.test(value)
