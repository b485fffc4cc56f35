"""The thread that obeys commands: it may wait for the hub and the disk, which paho's thread must not."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from queue import Full, Queue

from bridge.core.events import Override, SetVariables
from bridge.core.model import Snapshot
from bridge.hub import Hub
from bridge.mqtt.commands import Order, Request, understand

logger = logging.getLogger(__name__)

STORED_S = 5.0
"""``ok`` is answered when a set is on disk; when that takes longer, the answer is an error."""

MAX_WAITING = 32
"""Requests that may wait; more are answered with an error at once."""


class Clerk:
    """Takes requests in turn and hands each answer to ``answer``, which is called on several threads."""

    def __init__(self, hub: Hub, answer: Callable[[Request, str], None]) -> None:
        self._hub = hub
        self._answer = answer
        self._stopping = False
        self._waiting: Queue[Request | None] = Queue(MAX_WAITING)
        self._thread = threading.Thread(target=self._run, name="mqtt-commands", daemon=True)

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    def take(self, request: Request) -> None:
        """Leave a request; never blocks."""
        try:
            self._waiting.put_nowait(request)
        except Full:
            order = understand(request, self._hub.snapshot, time.time())
            self._answer(request, order.error("too many commands at once; this one was not carried out"))

    def stop(self) -> None:
        """Carry out nothing more."""
        self._stopping = True
        with suppress(Full):
            self._waiting.put_nowait(None)

    def _run(self) -> None:
        while (request := self._waiting.get()) and not self._stopping:
            try:
                order = understand(request, self._hub.snapshot, time.time())
                self._answer(request, self._obey(order, order.event) if order.event else order.answer)
            except Exception:
                logger.exception("the command %s failed", request.command)

    def _obey(self, order: Order, event: SetVariables | Override) -> str:
        try:
            state = self._hub.ask(event).state
        except TimeoutError:
            return order.error("not confirmed in time; it may still take effect")
        if isinstance(event, Override):
            return order.ok()
        receipt = state.receipt_of(event)
        if receipt is None:
            return order.error("in force, but nothing is known of its storage")
        number = receipt.id

        def settled(snapshot: Snapshot) -> bool:
            known = snapshot.state.receipts.get(number)
            return snapshot.state.stored_receipt >= number or bool(known and known.error)

        snapshot = self._hub.until(settled, STORED_S)
        if snapshot is None or snapshot.state.stored_receipt < number:
            return order.error("in force, but it could not be stored and will not outlast a restart")
        return order.ok(receipt=number)
