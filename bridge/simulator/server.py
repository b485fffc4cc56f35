"""Modbus/TCP: one simulated device at one address (Modbus messaging on TCP/IP implementation guide V1.0b)."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct

from bridge.simulator.device import Device

HEADER = struct.Struct(">HHHB")
"""MBAP header: transaction, protocol (0), length of what follows it, unit."""


class Server:
    """Serves a device to any number of clients. ``hanging``: accepts connections and requests, never answers.

    On plain sockets with a task for each connection: to cancel the task is to drop the connection, at once.
    """

    def __init__(self, device: Device, host: str, port: int) -> None:
        self.device = device
        self.host = host
        self.port = port
        self.hanging = False
        self._listener: socket.socket | None = None
        self._peers: set[asyncio.Task[None]] = set()

    @property
    def address(self) -> str:
        """Where it listens, as ``host:port``."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    async def open(self) -> None:
        """Listen. Port 0 takes a free one and keeps it; raises OSError when the address cannot be had."""
        if self._listener is None:
            family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
            self._listener = socket.create_server((self.host, self.port), family=family)
            self._listener.setblocking(False)
            self.port = self._listener.getsockname()[1]
            asyncio.get_running_loop().add_reader(self._listener, self._accept, self._listener)

    async def close(self) -> None:
        """Stop listening and drop every connection; clients are refused from now on."""
        if self._listener is not None:
            asyncio.get_running_loop().remove_reader(self._listener)
            self._listener.close()
            self._listener = None
        await self.drop()

    async def drop(self) -> None:
        """Drop every connection."""
        for task in self._peers:
            task.cancel()
        await asyncio.gather(*self._peers, return_exceptions=True)

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):  # the client has left already
            peer, _ = listener.accept()
            peer.setblocking(False)
            task = asyncio.create_task(self._serve(peer))
            self._peers.add(task)
            task.add_done_callback(self._peers.discard)
            task.add_done_callback(lambda _: peer.close())

    async def _serve(self, peer: socket.socket) -> None:
        with contextlib.suppress(ConnectionError):  # the client left
            while True:
                transaction, protocol, length, unit = HEADER.unpack(await _receive(peer, HEADER.size))
                if protocol != 0 or not 2 <= length <= 254:
                    return
                pdu = await _receive(peer, length - 1)
                reply = None if self.hanging else self.device.answer(unit, pdu)
                if reply is not None:
                    header = HEADER.pack(transaction, 0, len(reply) + 1, unit)
                    await asyncio.get_running_loop().sock_sendall(peer, header + reply)


async def _receive(peer: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = await asyncio.get_running_loop().sock_recv(peer, size - len(data))
        if not part:
            raise ConnectionResetError("the client left")
        data += part
    return data
