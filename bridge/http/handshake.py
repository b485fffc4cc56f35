"""A TLS handshake that says why it failed, to both ends.

asyncio hangs up on a failed handshake without sending the alert, so that the other end would only see a connection that
breaks off, and the gateway's administrator could not tell an expired certificate from a wrong one.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from contextvars import ContextVar

from bridge.http.connection import LINGER_S

_told: ContextVar[Callable[[ssl.SSLError], None]] = ContextVar("told")
"""Whom to tell of a failed handshake: asyncio makes the session, but in the context of whoever wants it."""


async def accept(
    wire: socket.socket, protocol: asyncio.Protocol, context: ssl.SSLContext | None, timeout_s: float
) -> None:
    """Connect the protocol to an accepted socket, after the TLS handshake where there is one. Raises OSError."""
    loop = asyncio.get_running_loop()
    wire.setblocking(False)
    if context is None:
        await loop.connect_accepted_socket(lambda: protocol, wire)
        return
    failures: list[ssl.SSLError] = []

    def failed(error: ssl.SSLError) -> None:
        failures.append(error)
        loop.call_soon(_hang_up, wire)

    _told.set(failed)
    context.sslobject_class = Telling
    limits = {"ssl_handshake_timeout": timeout_s, "ssl_shutdown_timeout": LINGER_S}
    try:
        await loop.connect_accepted_socket(lambda: protocol, wire, ssl=context, **limits)
    except OSError as error:
        raise (failures[0] if failures else error) from error


def _hang_up(wire: socket.socket) -> None:
    with suppress(OSError):  # it has gone already
        wire.shutdown(socket.SHUT_RDWR)


class Telling(ssl.SSLObject):
    """Claims to wait for more after a failure: asyncio then sends what is to be sent, the alert."""

    _failed = False

    def do_handshake(self) -> None:
        """Go on with the handshake; see :meth:`ssl.SSLObject.do_handshake`."""
        if self._failed:
            raise ssl.SSLWantReadError
        try:
            super().do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLError as error:
            self._failed = True
            _told.get()(error)
            raise ssl.SSLWantReadError from error
