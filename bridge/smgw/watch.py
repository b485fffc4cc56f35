"""Tells the core until when the certificates in the store are valid, whoever changes them: pages or commands."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping

from bridge.core.events import Certificates
from bridge.core.model import Snapshot
from bridge.edge import Post
from bridge.errors import BridgeError
from bridge.smgw.store import Store

logger = logging.getLogger(__name__)

LOOK_S = 10.0
"""So often the store is looked at; :meth:`Watch.look` does it at once. Files are read only when they have changed."""


class Watch:
    """An edge that posts :class:`~bridge.core.events.Certificates` at the start and whenever the store has changed."""

    def __init__(self, store: Store, post: Post) -> None:
        self._store = store
        self._post = post
        self._stamps: Mapping[str, object] = {}
        self._wake = threading.Event()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="certificates", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def offer(self, snapshot: Snapshot) -> None:
        """Nothing that was decided changes a certificate."""

    def stop(self) -> None:
        """Look no more."""
        self._stopping = True
        self._wake.set()

    def look(self) -> None:
        """Look soon: something has changed. Never blocks; callable from any thread."""
        self._wake.set()

    def _run(self) -> None:
        while not self._stopping:
            try:
                self._follow()
            except BridgeError as error:
                logger.error("the certificates cannot be looked at: %s", error)
            self._wake.wait(LOOK_S)
            self._wake.clear()

    def _follow(self) -> None:
        stamps = {name: self._store.stamp(name) for name in self._store.names()}
        if stamps == self._stamps:
            return
        ends = {}
        for name in stamps:
            try:
                ends[name] = self._store.load(name).not_after
            except BridgeError as error:
                logger.error("%s", error)
        self._stamps = stamps
        self._post(Certificates(ends))
