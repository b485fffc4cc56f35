"""The functions a formula may call.

Each is a Python function of the same name, so a formula reads like a call; some hide a builtin in this module
only. Arguments and results are finite floats. The example in each docstring is itself a formula, and a test runs it.
To add a function, write it here and list it in :data:`FUNCTIONS`.
"""

from __future__ import annotations

import builtins
import math
from collections.abc import Callable, Mapping


class NoValue(Exception):
    """A formula has no value now; ``reason`` tells a user why."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def min(a: float, b: float, *more: float) -> float:
    """The smallest of two or more values.

    >>> min(7, 3, 5)
    3.0
    """
    return builtins.min(a, b, *more)


def max(a: float, b: float, *more: float) -> float:
    """The largest of two or more values.

    >>> max(7, 3, 5)
    7.0
    """
    return builtins.max(a, b, *more)


def abs(x: float) -> float:
    """The value without its sign.

    >>> abs(-2)
    2.0
    """
    return math.fabs(x)


def round(x: float) -> float:
    """The nearest whole number; halves are rounded away from zero, as in C.

    >>> round(2.5)
    3.0
    """
    fraction, whole = math.modf(x)
    return whole + math.copysign(1.0, x) if math.fabs(fraction) >= 0.5 else whole


def floor(x: float) -> float:
    """The next lower whole number.

    >>> floor(-2.5)
    -3.0
    """
    return float(math.floor(x))


def ceil(x: float) -> float:
    """The next higher whole number.

    >>> ceil(-2.5)
    -2.0
    """
    return float(math.ceil(x))


def sqrt(x: float) -> float:
    """The square root.

    >>> sqrt(16)
    4.0
    """
    if x < 0:
        raise NoValue("the square root of a negative number is not a real number")
    return math.sqrt(x)


def clamp(x: float, low: float, high: float) -> float:
    """The value, but at least ``low`` and at most ``high``; should they cross, ``high`` wins.

    >>> clamp(20, 6, 16)
    16.0
    """
    return builtins.min(builtins.max(x, low), high)


def exists(name: Callable[[], float]) -> float:
    """1 when a variable or reading has a value now, even if that value is 0; otherwise 0.

    The one function that takes a name: the evaluator hands it over unread, as a callable.

    >>> exists(AVAIL)
    1.0
    """
    try:
        name()
    except NoValue:
        return 0.0
    return 1.0


FUNCTIONS: Mapping[str, Callable[..., float]] = {
    function.__name__: function for function in (min, max, abs, round, floor, ceil, sqrt, clamp, exists)
}
