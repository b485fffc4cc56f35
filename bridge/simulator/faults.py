"""What goes wrong at the simulated gateway, also as words of a command line: ``idle=60``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bridge.simulator.handshake import Papers

CURVES = ("brainpoolP256r1", "brainpoolP384r1", "prime256v1", "secp384r1")
"""Those of the presets of ``smgw.crypto``, as OpenSSL spells them."""


@dataclass(slots=True)
class Faults:
    """What goes wrong; changes count from the next connection on.

    ``deaf``: hangs up on every hello. ``papers``: shows others. ``curve``: the only one it speaks. ``refusal``: SOCKS
    answers every request with this code. ``idle_s``: a channel on which nothing moves is cut. ``session_s``: how long a
    TLS session may last at most (TR-03116-3: 48 h).
    """

    deaf: bool = False
    papers: Papers | None = None
    curve: str | None = None
    refusal: int = 0
    idle_s: float = float("inf")
    session_s: float = 48 * 3600.0


Fault = tuple[str, object]
"""A field of :class:`Faults` and its value; ``papers`` are still to be found."""


def fault(text: str) -> Fault:
    """A fault as it is called on the command line. Raises ValueError with what is allowed."""
    word, _, value = text.partition("=")
    if word not in _WORDS:
        raise ValueError(f"{text}: no such fault; there are {', '.join(_WORDS)}")
    field, read = _WORDS[word]
    try:
        return field, read(value)
    except ValueError as error:
        raise ValueError(f"{text}: {error}") from None


def _bare(value: str) -> bool:
    if value:
        raise ValueError("takes no value")
    return True


def _curve(value: str) -> str:
    if value not in CURVES:
        raise ValueError(f"curve= is one of {', '.join(CURVES)}")
    return value


def _code(value: str) -> int:
    if not (value.isdecimal() and 1 <= int(value) <= 255):
        raise ValueError("refuse= is a code of RFC 1928, such as 2 for not allowed or 5 for refused")
    return int(value)


def _seconds(value: str) -> float:
    try:
        seconds = float(value)
    except ValueError:
        seconds = 0.0
    if not 0.0 < seconds < float("inf"):
        raise ValueError("a number of seconds above 0 is expected")
    return seconds


_WORDS: Mapping[str, tuple[str, Callable[[str], object]]] = {
    "deaf": ("deaf", _bare),
    "other-certificate": ("papers", _bare),
    "curve": ("curve", _curve),
    "refuse": ("refusal", _code),
    "idle": ("idle_s", _seconds),
    "session": ("session_s", _seconds),
}
"""Word of the command line to field, and how its value is read."""
