"""A simulated site: the devices of a configuration that live on loopback, played by one thread."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from ipaddress import ip_address
from random import Random
from urllib.parse import urlsplit

from bridge.core.config import Config, DeviceConfig, MeterConfig, WallboxConfig
from bridge.errors import BridgeError, ConfigError
from bridge.simulator.car import MODELS, Car
from bridge.simulator.cfos import Cfos
from bridge.simulator.device import Device
from bridge.simulator.heidelberg import Heidelberg
from bridge.simulator.house import House
from bridge.simulator.keba import Keba
from bridge.simulator.meter import Sdm630
from bridge.simulator.server import Server
from bridge.simulator.wallbox import Wallbox
from bridge.simulator.world import World

logger = logging.getLogger(__name__)

WALLBOXES: dict[str, type[Wallbox]] = {"keba-p30": Keba, "heidelberg-ec": Heidelberg, "cfos-power-brain": Cfos}
METERS: dict[str, type[Sdm630]] = {"eastron-sdm630": Sdm630}
"""Profiles (of the bridge) to the register map that is simulated for them."""

TICK_S = 0.1


class Site:
    """House, cars, wallboxes and meters of ``config``, each served at its own address.

    ``seed`` decides the habits of cars and house, ``speed`` accelerates them. Raises :class:`ConfigError` for a
    device on loopback whose profile is not simulated, and when there is nothing to simulate.
    """

    def __init__(self, config: Config, *, seed: int = 1, speed: float = 1.0) -> None:
        self.wallboxes: dict[str, Wallbox] = {}
        self.meters: dict[str, Sdm630] = {}
        self._servers: dict[str, Server] = {}
        self._build(config, Random(seed))
        now = time.localtime()
        house = House(seed, time_s=3600.0 * now.tm_hour + 60.0 * now.tm_min)
        meters = [(meter.role, self.meters[meter.id]) for meter in config.meters if meter.id in self.meters]
        self._world = World(house, self.wallboxes.values(), meters, speed)
        self._loop: asyncio.AbstractEventLoop
        self._ended: asyncio.Event
        self._opened: Future[None] = Future()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()), name="simulator", daemon=True)

    def _build(self, config: Config, random: Random) -> None:
        local = [device for device in config.devices if is_here(device.address)]
        mistakes = [] if local else ["nothing to simulate: no device has a loopback address such as 127.0.0.1:15021"]
        for device in local:
            profile = device.profile.replace("_", "-")
            known = METERS if isinstance(device, MeterConfig) else WALLBOXES
            if profile not in known:
                mistakes.append(f"{device.id}: profile {device.profile} is not simulated, only {', '.join(known)}")
            elif isinstance(device, WallboxConfig):
                car = Car.drawn(MODELS[len(self.wallboxes) % len(MODELS)], random)
                self.wallboxes[device.id] = WALLBOXES[profile](device.id, car, device.lines)
                self._place(device, self.wallboxes[device.id])
            else:
                self.meters[device.id] = METERS[profile]()
                self._place(device, self.meters[device.id])
        if mistakes:
            raise ConfigError(mistakes)

    def _place(self, config: DeviceConfig, device: Device) -> None:
        if config.unit is not None:
            device.unit = config.unit
        host, port = _split(config.address)
        self._servers[config.id] = Server(device, host, device.port if port is None else port)

    # life

    def start(self) -> None:
        """Open every address and let time run; raises :class:`BridgeError` when an address cannot be had."""
        self._thread.start()
        self._opened.result(timeout=10.0)

    def stop(self) -> None:
        """Close every address and end the thread."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._ended.set)
            self._thread.join()

    def address(self, id: str) -> str:
        """Where a device listens: ``host:port``, with the port it got when 0 was asked for."""
        return self._servers[id].address

    # what people and accidents do; each has happened when the call returns

    def plug(self, id: str) -> None:
        """Let the car of a wallbox come and plug in."""
        self._do(self.wallboxes[id].car.plug)

    def unplug(self, id: str) -> None:
        """Let the car of a wallbox leave."""
        self._do(self.wallboxes[id].car.unplug)

    def reboot(self, id: str) -> None:
        """Restart a wallbox: registers back to their defaults, connections dropped."""
        self._do(self.wallboxes[id].reboot)
        self._do(self._servers[id].drop)
        logger.info("%s: rebooted", id)

    def hang(self, id: str, hanging: bool) -> None:
        """Let a device accept connections and requests without ever answering, or let it answer again."""
        self._servers[id].hanging = hanging

    def away(self, id: str, away: bool) -> None:
        """Take a device off the network (connections are dropped and refused), or bring it back."""
        self._do(self._servers[id].close if away else self._servers[id].open)

    def _do(self, action: Callable[[], Awaitable[None] | None]) -> None:
        """Run ``action`` in the simulator's thread and wait for its end."""

        async def run() -> None:
            pending = action()
            if pending is not None:
                await pending

        asyncio.run_coroutine_threadsafe(run(), self._loop).result(timeout=5.0)

    # the simulator's thread

    async def _main(self) -> None:
        self._loop, self._ended = asyncio.get_running_loop(), asyncio.Event()
        try:
            await self._open()
            self._opened.set_result(None)
            await self._run()
        except BridgeError as error:
            self._opened.set_exception(error)
        finally:
            for server in self._servers.values():
                await server.close()

    async def _open(self) -> None:
        for id, server in self._servers.items():
            try:
                await server.open()
            except OSError as error:
                raise BridgeError(f"{id}: cannot listen on {server.address}: {error.strerror}") from error
            logger.info("%s: simulated on %s, unit %d", id, server.address, server.device.unit)

    async def _run(self) -> None:
        last = time.monotonic()
        while not self._ended.is_set():
            await asyncio.sleep(TICK_S)
            now = time.monotonic()
            self._world.advance(now - last)
            last = now


def _split(address: str) -> tuple[str, int | None]:
    parts = urlsplit(f"//{address}")
    return parts.hostname or "", parts.port


def is_here(address: str) -> bool:
    """Whether a device with this address is one to be simulated."""
    host, _ = _split(address)
    try:
        return ip_address(host).is_loopback
    except ValueError:  # a name
        return host == "localhost"
