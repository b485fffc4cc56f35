"""A simulated smart meter gateway with its market participant, the far end (BSI TR-03109-1).

HKS3: the bridge connects, TLS with certificates on both sides, and names a destination by SOCKS5 or TLS-SNI. HKS4 and
HKS5: whoever speaks HTTP to the plain port of the far end is connected to the SMGW door of the bridge. With
``reverse`` he gets one of the connections that the bridge has made to him instead. Everything behind the gateway is on
this machine: of a destination only the port counts.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import threading
from collections.abc import Awaitable, Callable, Collection
from concurrent.futures import Future
from dataclasses import dataclass, field

from bridge.errors import BridgeError
from bridge.simulator.channel import Streams, channel, close
from bridge.simulator.faults import Faults
from bridge.simulator.handshake import HANDSHAKE_S, Context, Papers, context, greeted
from bridge.simulator.proxy import GRANTED, REFUSED_THERE, reply, requested

logger = logging.getLogger(__name__)

Place = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Setting:
    """What the gateway administrator enters. ``curve`` None leaves it to OpenSSL, up to TLS 1.3.

    ``listen``: the port of HKS3 in the house network. ``profile``: the destinations (host, port) it may be asked for.
    ``door``: where the bridge listens. ``reverse``: the destination in the profile that asks on the connections which
    the bridge has made to it. ``far_end``: the plain port.
    """

    papers: Papers
    curve: str | None = "brainpoolP256r1"
    listen: Place | None = None
    profile: Collection[Place] = ()
    door: Place | None = None
    reverse: Place | None = None
    far_end: Place = ("127.0.0.1", 0)
    faults: Faults = field(default_factory=Faults)


class Gateway:
    """Runs in a thread of its own. ``port`` and ``far_end_port`` are known once it has started."""

    def __init__(self, setting: Setting) -> None:
        self.faults = setting.faults
        self.port = self.far_end_port = 0
        self._setting = setting
        self._channels: set[asyncio.Task[None]] = set()
        self._waiting: asyncio.Queue[tuple[Streams, asyncio.TimerHandle]] = asyncio.Queue()
        self._loop: asyncio.AbstractEventLoop
        self._ended: asyncio.Event
        self._opened: Future[None] = Future()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()), name="gateway", daemon=True)

    def start(self) -> None:
        """Open the ports; raises :class:`BridgeError` when one cannot be had or a certificate cannot be used."""
        self._thread.start()
        self._opened.result(timeout=10.0)

    def stop(self) -> None:
        """Cut every channel and end the thread."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._ended.set)
            self._thread.join()

    def cut(self) -> None:
        """Cut every channel now."""
        self._loop.call_soon_threadsafe(lambda: [task.cancel() for task in self._channels])

    # ------------------------------------------------------------------------------------------------ its thread

    async def _main(self) -> None:
        self._loop, self._ended = asyncio.get_running_loop(), asyncio.Event()
        setting, servers = self._setting, []
        try:
            self._context(ssl.PROTOCOL_TLS_SERVER)
            if setting.listen:
                servers.append(await self._listen(setting.listen, self._hks3))
                self.port = servers[-1].getsockname()[1]
            if setting.door or setting.reverse:
                servers.append(await self._listen(setting.far_end, self._hks45))
                self.far_end_port = servers[-1].getsockname()[1]
            self._opened.set_result(None)
            await self._ended.wait()
        except (OSError, BridgeError) as error:
            self._opened.set_exception(BridgeError(f"the gateway cannot be simulated: {error}"))
        finally:
            for server in servers:
                self._loop.remove_reader(server)
                server.close()
            await asyncio.sleep(0)  # a task that is cancelled before its first step would leave its connection open
            while not self._waiting.empty():
                self._waiting.get_nowait()[0][1].transport.abort()
            for task in self._channels:
                task.cancel()
            await asyncio.gather(*self._channels, return_exceptions=True)

    async def _listen(self, place: Place, serve: Callable[[socket.socket], Awaitable[None]]) -> socket.socket:
        listener = socket.create_server(place, family=socket.AF_INET6 if ":" in place[0] else socket.AF_INET)
        listener.setblocking(False)

        async def guarded(wire: socket.socket) -> None:
            try:
                await serve(wire)
            except (OSError, EOFError, BridgeError) as error:
                wire.close()
                logger.info("gateway: %s", error or type(error).__name__)

        def accept() -> None:
            wire, _ = listener.accept()
            task = asyncio.create_task(guarded(wire))
            self._channels.add(task)
            task.add_done_callback(self._channels.discard)

        self._loop.add_reader(listener, accept)
        return listener

    async def _hks3(self, wire: socket.socket) -> None:
        """The bridge has connected."""
        if self.faults.deaf:
            wire.close()
            return
        near, name = await greeted(self._context(ssl.PROTOCOL_TLS_SERVER), wire, self._setting.profile)
        try:
            place = await self._asked(near, name)
            try:
                far = None if self._setting.reverse == place else await asyncio.open_connection("127.0.0.1", place[1])
            except OSError:
                if not name:
                    reply(near[1], REFUSED_THERE)
                raise
            if not name:
                reply(near[1], GRANTED)
        except BaseException:
            await close(near[1])
            raise
        if far:
            await channel(near, far, self.faults.idle_s, self.faults.session_s)
        else:
            end = self._loop.call_later(min(self.faults.idle_s, self.faults.session_s), near[1].transport.abort)
            self._waiting.put_nowait((near, end))

    async def _asked(self, near: Streams, name: str) -> Place:
        """The destination, named in the hello or by SOCKS."""
        if name:
            place = next(place for place in self._setting.profile if place[0] == name)
        else:
            async with asyncio.timeout(HANDSHAKE_S):
                place = await requested(near, self._setting.profile, self.faults.refusal)
        logger.info("gateway: the bridge asks for %s:%d", *place)
        return place

    async def _hks45(self, wire: socket.socket) -> None:
        """The far end wants to ask the bridge something."""
        near = await asyncio.open_connection(sock=wire)
        try:
            far = await (self._waiting_one() if self._setting.reverse else self._door())
        except BaseException:
            near[1].transport.abort()
            raise
        await channel(near, far, self.faults.idle_s, self.faults.session_s)

    async def _waiting_one(self) -> Streams:
        while True:
            far, end = await self._waiting.get()
            end.cancel()
            if not far[0].at_eof():
                return far
            far[1].transport.abort()

    async def _door(self) -> Streams:
        assert self._setting.door
        host, port = self._setting.door
        # An empty name: no SNI. The certificate is known by heart.
        return await asyncio.open_connection(host, port, ssl=self._context(ssl.PROTOCOL_TLS_CLIENT), server_hostname="")

    def _context(self, side: int) -> Context:
        return context(side, self.faults.papers or self._setting.papers, self.faults.curve or self._setting.curve)
