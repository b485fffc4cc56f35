"""The way in where the gateway only lets us out: we connect, the far end asks (HKS3 turned round).

Some connections through the tunnel are always open; what the far end says on them goes to the SMGW door as if it had
connected there. Who it is, the gateway's pinned certificate and its proxy profile vouch for.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256
from random import uniform

from bridge.smgw.diagnosis import TunnelError
from bridge.smgw.pump import PIECE, close, pump
from bridge.smgw.tunnel import Tunnel

logger = logging.getLogger(__name__)

POOL = 2
"""While one connection is busy or being renewed, the other is there."""
STEADY_S = 10.0
"""A connection that has lasted so long was no failure, even if nothing was asked on it."""

Admit = Callable[[socket.socket, str], None]
"""Takes a connected socket to the SMGW door as if it had been accepted there, from whoever has the certificate with
this SHA-256 (hex; empty where a sidecar vouches). Never blocks."""


class Backoff:
    """Waits between attempts: each up to twice as long as the last, and never two houses the same."""

    def __init__(self, first_s: float = 1.0, longest_s: float = 60.0) -> None:
        self._first_s, self._longest_s = first_s, longest_s
        self._ceiling_s = first_s

    def next_s(self) -> float:
        """How long to wait before the next attempt, in seconds."""
        wait_s = uniform(0.5, 1.0) * self._ceiling_s
        self._ceiling_s = min(2 * self._ceiling_s, self._longest_s)
        return wait_s

    def reset(self) -> None:
        """It worked: begin with the shortest wait again."""
        self._ceiling_s = self._first_s


class Reverse:
    """Keeps :data:`POOL` connections to ``host:port`` behind the gateway and lets in who asks on them."""

    def __init__(self, tunnel: Tunnel, host: str, port: int, admit: Admit) -> None:
        self._tunnel = tunnel
        self._host, self._port = host, port
        self._admit = admit

    async def run(self) -> None:
        """Go on until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(POOL):
                group.create_task(self._keep())

    async def _keep(self) -> None:
        clock = asyncio.get_running_loop().time
        backoff = Backoff()
        while True:
            begun = clock()
            try:
                asked = await self._once()
            except TunnelError:  # the tunnel has said so already
                asked = False
            except Exception:
                # The far end must find us again, whatever it was.
                logger.exception("a reverse connection failed")
                asked = False
            if asked or clock() - begun > STEADY_S:
                backoff.reset()
            await asyncio.sleep(backoff.next_s())

    async def _once(self) -> bool:
        """One connection from its beginning to its end; whether anything was asked on it."""
        far = await self._tunnel.open(self._host, self._port)
        clock = asyncio.get_running_loop().time
        end = clock() + self._tunnel.session_s()
        try:
            first = await _first_words(far[0], end)
            if not first:
                return False
            ours, doors = socket.socketpair()
            try:
                self._admit(doors, _peer(far[1]))
            except BaseException:
                ours.close()
                doors.close()
                raise
            near = await asyncio.open_connection(sock=ours)
            near[1].write(first)
            await pump(near, far, end - clock())
            return True
        finally:
            await close(far[1])


def _peer(writer: asyncio.StreamWriter) -> str:
    session: ssl.SSLObject | None = writer.get_extra_info("ssl_object")
    certificate = session.getpeercert(binary_form=True) if session else None
    return sha256(certificate).hexdigest() if certificate else ""


async def _first_words(reader: asyncio.StreamReader, end: float) -> bytes:
    """What the far end says first; empty when it was cut or is old enough to be renewed, both of which are normal.

    The door gives a connection a few seconds to ask something, so it is only told of one when there is a request.
    """
    with suppress(OSError):  # TimeoutError too
        async with asyncio.timeout_at(end):
            return await reader.read(PIECE)
    return b""
