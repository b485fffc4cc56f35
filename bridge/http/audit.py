"""What is written down of a door without a password: who asked for what. A flood must not fill the disk."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any

from bridge.core.events import SetVariables

logger = logging.getLogger("bridge.audit")

LINES = 60
"""In one minute; what comes beyond is told as a number. Less than 50 MB a day, whatever happens."""
MINUTE_S = 60.0
MAX_LINE = 500


class Audit:
    """Lines of one ``kind`` (``smgw door requests``). ``clock`` counts seconds; any thread may note."""

    def __init__(self, kind: str, clock: Callable[[], float]) -> None:
        self._kind = kind
        self._clock = clock
        self._since = clock()
        self._count = 0
        self._lock = threading.Lock()

    def note(self, line: str) -> None:
        """Write a line, or only count it when there were many within the minute."""
        self.tick()
        with self._lock:
            self._count += 1
            written = self._count <= LINES
        if written:
            logger.info("%s: %s", self._kind, line)

    def tick(self) -> None:
        """Tell how many lines were left out once the minute is over; call it now and then."""
        now = self._clock()
        with self._lock:
            if now - self._since < MINUTE_S:
                return
            self._since = now
            left_out, self._count = self._count - LINES, 0
        if left_out > 0:
            logger.info("%s: %d more in the last minute", self._kind, left_out)


def harmless(text: str) -> str:
    """What the far end chose freely, such that it neither looks like a line of our own nor fills the disk."""
    return text[:100].encode("unicode_escape").decode()


def line_of(environ: Mapping[str, Any], status: str) -> str:
    """A request in one line: who, from where, what, how it ended, and the names of the variables it set."""
    who = f"{environ['bridge.peer'][:16] or '-'} {environ['REMOTE_ADDR']}"
    method, path = (harmless(environ[name]) for name in ("REQUEST_METHOD", "PATH_INFO"))
    line = f"{who} {method} {path} {status[:3]}"
    event: SetVariables | None = environ.get("bridge.set")
    if event is None:
        return line
    names = ", ".join(name for name, _ in event.variables)
    return f"{line} set {names}"[:MAX_LINE] + (" after clear" if event.clear else "")
