"""What is made of certificates of the store, and follows them when they are replaced."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from bridge.errors import BridgeError
from bridge.smgw.store import Store

logger = logging.getLogger(__name__)

LOOK_S = 0.5
"""So often the files are looked at."""

T = TypeVar("T")


class Following(Generic[T]):
    """Call it for what ``make`` has made of the certificates ``names``, a TLS context for instance.

    It is made at once, which may raise :class:`BridgeError`. A replacement that cannot be used is told of once, and
    what was made before stays in use.
    """

    def __init__(
        self, store: Store, names: Sequence[str], make: Callable[[], T], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._store = store
        self._names = tuple(names)
        self._make = make
        self._clock = clock
        self._looked = clock()
        self._stamps = self._look()
        self._made = make()

    def __call__(self) -> T:
        """The newest."""
        now = self._clock()
        if now - self._looked >= LOOK_S:
            self._looked = now
            # The stamps come first: a change in between makes them differ again the next time.
            stamps = self._look()
            if stamps != self._stamps:
                self._stamps = stamps
                self._renew()
        return self._made

    def _renew(self) -> None:
        shown = ", ".join(self._names)
        try:
            self._made = self._make()
        except BridgeError as error:
            logger.error("certificates %s: the change is not used: %s", shown, error)
        else:
            logger.info("certificates %s: the change counts for new connections", shown)

    def _look(self) -> tuple[object, ...]:
        return tuple(self._store.stamp(name) for name in self._names)
