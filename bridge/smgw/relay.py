"""A door on loopback to one destination behind the gateway, for clients that know nothing of tunnels."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress

from bridge.smgw.diagnosis import TunnelError
from bridge.smgw.pump import pump
from bridge.smgw.tunnel import Streams, Tunnel


class Relay:
    """Carries each connection to :attr:`address` through the gateway to ``host:port``.

    It listens from the beginning, so that others can be told the address; clients are served from :meth:`start` on.
    Each connection is a TLS session of its own and is closed when the session has lasted long enough: the client comes
    back at once, into a new one. A client to which the gap matters opens its second connection before that
    (:meth:`Tunnel.session_s`) and closes the first itself. When the tunnel cannot be opened, the client is hung up
    on; when to try again is up to it.
    """

    def __init__(self, tunnel: Tunnel, host: str, port: int) -> None:
        self._tunnel = tunnel
        self._host, self._port = host, port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._server: asyncio.Server | None = None
        self._clients: set[asyncio.Task[None]] = set()
        self.address: tuple[str, int] = self._listener.getsockname()[:2]

    async def start(self) -> None:
        """Begin to serve."""
        self._server = await asyncio.start_server(self._accept, sock=self._listener)

    def drop(self) -> None:
        """End every connection; new ones are welcome."""
        for client in self._clients:
            client.cancel()

    async def close(self) -> None:
        """Serve nobody any more."""
        if self._server:
            self._server.close()
        self._listener.close()
        self.drop()
        await asyncio.gather(*self._clients, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client = asyncio.create_task(self._serve((reader, writer)))
        self._clients.add(client)
        client.add_done_callback(self._clients.discard)
        # Here, not in _serve: a task that is cancelled before its first step never enters it.
        client.add_done_callback(lambda _: writer.transport.abort())

    async def _serve(self, near: Streams) -> None:
        with suppress(TunnelError):  # the tunnel has said so already
            far = await self._tunnel.open(self._host, self._port)
            await pump(near, far, self._tunnel.session_s())
