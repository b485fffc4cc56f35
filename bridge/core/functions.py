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


LEAST_W = 4200.0
"""What a controllable device may always draw (BK6-22-300, Anlage 1, 4.5)."""
_LARGE_W = 11_000.0
"""Heat pumps, or cooling, of more than this together keep 40 % of their power instead."""
_GZF = (0.80, 0.75, 0.70, 0.65, 0.60, 0.55, 0.50, 0.45)
"""The factor for 2, 3 … 9 and more devices: not all of them draw at the same time."""


def pmin14a(n: float, hp_w: float = 0.0, cooling_w: float = 0.0) -> float:
    """The least power in watts a grid operator must leave n controllable devices behind one energy management.

    BK6-22-300, Anlage 1, 4.5.2. All devices count in ``n``, the group of heat pumps as one, the group of cooling as
    one; ``hp_w`` and ``cooling_w`` are the connection powers of these groups.

    >>> pmin14a(2)
    7560.0
    """
    if n < 0 or not n.is_integer():
        raise NoValue(f"pmin14a counts devices, and {n:g} is no number of devices")
    if n == 0:
        return 0.0
    large = [0.4 * group for group in (hp_w, cooling_w) if group > _LARGE_W]
    factor = _GZF[int(builtins.min(n, 9)) - 2] if n > 1 else 0.0
    return builtins.max(large, default=LEAST_W) + (n - 1) * factor * LEAST_W


FUNCTIONS: Mapping[str, Callable[..., float]] = {
    function.__name__: function for function in (min, max, abs, round, floor, ceil, sqrt, clamp, exists, pmin14a)
}
