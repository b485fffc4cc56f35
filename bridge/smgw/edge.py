"""The SMGW edge: keeps the way out through the gateway, in a thread and an event loop of its own."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import Iterable, Mapping
from dataclasses import replace

from bridge.core.config import Config
from bridge.core.gateway import FunctionsConfig, SmgwConfig
from bridge.core.model import Snapshot
from bridge.smgw.contexts import client_context
from bridge.smgw.relay import Relay
from bridge.smgw.reverse import Admit, Reverse
from bridge.smgw.store import Store
from bridge.smgw.tunnel import Credentials, Tunnel, split

GRACE_S = 0.5
"""Connections get this long to end when the edge stops."""


class SmgwEdge:
    """Relays for those who want something behind the gateway, and the reverse connections.

    ``admit`` leads to the SMGW door, for ``smgw.reverse``. Without ``smgw:`` in the configuration, or with
    ``tunnel: none``, nothing is connected.
    """

    def __init__(self, config: Config, store: Store, admit: Admit) -> None:
        self._config = config.smgw or SmgwConfig()
        self._store = store
        self._admit = admit
        self._tunnel = Tunnel(self._config, credentials(store, self._config))
        self._mqtt = config.mqtt
        self._relays: dict[tuple[str, int], Relay] = {}
        self._newest: tuple[str, int] | None = None
        self._ending: set[asyncio.Task[None]] = set()
        self._reverse: asyncio.Task[None] | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="smgw", daemon=True)

    def relay(self, host: str, port: int) -> tuple[str, int]:
        """A loopback address that leads to ``host:port``, the broker behind the gateway.

        It goes on until the configuration names another broker, or none there.
        """
        self._newest = host, port
        if (host, port) not in self._relays:
            self._relays[host, port] = relay = Relay(self._tunnel, host, port)
            if self._thread.is_alive():
                asyncio.run_coroutine_threadsafe(relay.start(), self._loop).result()
        return self._relays[host, port].address

    def start(self) -> None:
        """Begin to serve the relays and to connect."""
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._begin(), self._loop).result()

    def offer(self, snapshot: Snapshot) -> None:
        """Take notice: another way through the gateway counts for new connections, and the old ones end."""
        config = snapshot.config.smgw or SmgwConfig()
        before, self._config = self._config, config
        if config is not before and _way(config) != _way(before):
            self._loop.call_soon_threadsafe(self._follow)
        if snapshot.config.mqtt != self._mqtt:
            self._mqtt = snapshot.config.mqtt
            for place in self._relays.keys() - ({self._newest} if self._mqtt.tunnel else set()):
                self._loop.call_soon_threadsafe(self._give_up, place, self._relays.pop(place))

    def stop(self) -> None:
        """End every connection."""
        if self._thread.is_alive():
            asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
        self._loop.close()

    @property
    def states(self) -> Mapping[str, str]:
        """Each destination behind the gateway (``host:port``), and ``open`` or what is wrong with the way there."""
        return dict(self._tunnel.states)

    def is_open(self, host: str, port: int) -> bool:
        """Whether the last attempt to get there was one that succeeded."""
        return self._tunnel.states.get(f"{host}:{port}") == "open"

    def metrics(self) -> Iterable[tuple[str, Mapping[str, str], float]]:
        """Samples for Prometheus: name, labels, value."""
        yield "smgw_tunnel_opened_total", {}, float(self._tunnel.opened)
        for destination, state in self.states.items():
            yield "smgw_tunnel_up", {"destination": destination}, float(state == "open")

    # ----------------------------------------------------------------------------------------------- the loop

    async def _begin(self) -> None:
        for relay in self._relays.values():
            await relay.start()
        self._begin_reverse()

    def _begin_reverse(self) -> None:
        if self._config.reverse and self._config.destination:
            reverse = Reverse(self._tunnel, *split(self._config.destination), self._let_in)
            self._reverse = asyncio.create_task(reverse.run())

    def _let_in(self, wire: socket.socket, shown: str) -> None:
        """With a sidecar nobody here has seen the gateway's certificate: that it is the right one is its business."""
        pinned = self._config.gateway_certificate
        if not shown and pinned:
            shown = self._store.load(pinned).fingerprint.replace(":", "").lower()
        self._admit(wire, shown)

    def _follow(self) -> None:
        self._tunnel.follow(self._config, credentials(self._store, self._config))
        for relay in tuple(self._relays.values()):  # another thread may take one out
            relay.drop()
        if self._reverse:
            self._reverse.cancel()
        self._begin_reverse()

    def _give_up(self, place: tuple[str, int], relay: Relay) -> None:
        """Close a relay that nobody needs any more."""
        task = asyncio.create_task(relay.close())
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)
        self._tunnel.states.pop("{}:{}".format(*place), None)

    async def _end(self) -> None:
        ends = [relay.close() for relay in self._relays.values()]
        if self._reverse:
            self._reverse.cancel()
        everything = asyncio.gather(*ends, *filter(None, [self._reverse]), return_exceptions=True)
        await asyncio.wait([everything], timeout=GRACE_S)
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)
        await asyncio.sleep(0)  # transports that were closed just now let go of their sockets in the next turn


def _way(config: SmgwConfig) -> SmgwConfig:
    """The same without what only concerns the SMGW door: changed there, nothing that is connected has to end."""
    return replace(config, listen=None, tls=True, role="none", functions=FunctionsConfig(), far_ends=())


def credentials(store: Store, config: SmgwConfig) -> Credentials:
    """Our side of TLS from the certificates in the store, read anew for each connection."""

    def load() -> tuple[ssl.SSLContext, str]:
        own, peer = (store.load(name or "") for name in (config.certificate, config.gateway_certificate))
        return client_context(config.crypto, own, peer), peer.fingerprint

    return load
