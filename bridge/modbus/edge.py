"""The Modbus edge: one thread with one event loop for all connections."""

from __future__ import annotations

import asyncio
import logging
import selectors
import socket
import threading
from collections.abc import Collection, Iterable, Mapping
from functools import partial

from bridge.core.config import Config, DeviceConfig, MeterConfig, WallboxConfig
from bridge.core.model import Snapshot
from bridge.edge import Post
from bridge.errors import LinkError
from bridge.modbus.address import Where, locate
from bridge.modbus.device import Device
from bridge.modbus.duty import Duty, Offered
from bridge.modbus.link import Link
from bridge.modbus.phases import Wanted
from bridge.modbus.profile import Profile
from bridge.modbus.proxy import Proxy, listen

logger = logging.getLogger(__name__)

Metric = tuple[str, Mapping[str, str], float]
"""Name, labels, value."""

SAFE_S = 0.6
"""Stopping waits this long for the wallboxes to take their safe current."""


class ModbusEdge:
    """Reads all meters and wallboxes and writes the wallboxes' setpoints.

    ``profiles`` holds the profile of each device by device id; it is consulted again when the configuration changes.
    """

    def __init__(self, config: Config, profiles: Mapping[str, Profile], post: Post) -> None:
        self._config, self._profiles, self._post = config, profiles, post
        self._newest: Snapshot | None = None
        self._loop: asyncio.AbstractEventLoop
        self._stopping = False
        self._kept: Collection[str] = ()
        self._thread = threading.Thread(target=self._run, name="modbus", daemon=True)
        self._links: dict[Where, tuple[Link, asyncio.Task[None]]] = {}
        self._devices: dict[str, tuple[Device, asyncio.Task[None]]] = {}
        self._duties: Mapping[str, Duty] = {}
        self._doors: dict[str, socket.socket] = {}
        self._proxies: dict[str, asyncio.Task[None]] = {}
        self._started = threading.Event()
        self._turn = threading.Lock()
        """Held by the loop's thread but while it waits: who gets it may do what else only that thread may. A setpoint
        then does not wait for a thread to wake up."""
        self._turn.acquire()

    # ------------------------------------------------------------------------------------------- for the hub

    def start(self) -> None:
        """Begin to connect and to read. Raises OSError when the address of a proxy cannot be used."""
        try:
            for device in filter(lambda device: device.proxy, self._config.devices):
                self._doors[device.id] = listen(device.proxy or "")
        except OSError:
            for door in self._doors.values():
                door.close()
            raise
        self._loop = asyncio.SelectorEventLoop(_Selector(self._turn))
        self._thread.start()
        self._started.wait()

    def offer(self, snapshot: Snapshot) -> None:
        """Take notice: compare, and write what changed, here and now if the loop is waiting."""
        if self._stopping:
            return
        known = self._newest.decision.setpoints if self._newest else {}
        self._newest = snapshot
        if snapshot.config is not self._config:
            self._config = snapshot.config
            self._loop.call_soon_threadsafe(self._furnish)
        changed: list[Duty] = []
        for box, setpoint in snapshot.decision.setpoints.items():
            before = known.get(box)
            # Most boxes are idle, and their setpoint is the same object as before.
            if setpoint is before or (before and setpoint.current_a == before.current_a):
                continue
            if duty := self._duties.get(box):
                changed.append(duty)
        if not changed:
            return
        if self._turn.acquire(blocking=False):
            try:
                _tell(changed)
            finally:
                self._turn.release()
            changed = []  # the loop only has to wake up and see to what follows
        self._loop.call_soon_threadsafe(_tell, changed)

    def hurry(self, decided: Snapshot) -> None:
        """The same; that the round is not written up yet does not matter to a register."""
        self.offer(decided)

    def stop(self) -> None:
        """Leave the wallboxes at a safe current and end, within a second."""
        self._stopping = True
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(1.0)

    def hand_over(self, config: Config) -> None:
        """End, because another edge goes on: the wallboxes it will have keep their current.

        Others are left as if the bridge ended, also those in whose stead there is now one elsewhere.
        """
        goes_on = {(box.address, box.unit) for box in config.wallboxes}
        self._kept = {box.id for box in self._config.wallboxes if (box.address, box.unit) in goes_on}
        self.stop()

    def metrics(self) -> Iterable[Metric]:
        """What there is to count: writes per register, timeouts, connections made, polls and how late they came."""
        for link, _ in list(self._links.values()):
            labels = {"address": str(link)}
            yield "modbus_timeouts_total", labels, link.timeouts
            yield "modbus_connects_total", labels, link.connects
        for name, (device, _) in list(self._devices.items()):
            yield "modbus_polls_total", {"device": name}, device.polls
            yield "modbus_poll_lateness_seconds", {"device": name}, device.lateness_s
            for point, count in list(device.registers.written.items()):
                yield "modbus_writes_total", {"device": name, "register": point}, count

    # ----------------------------------------------------------------------------------------------- the loop

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.call_soon(self._furnish)
        self._loop.call_soon(self._started.set)
        try:
            self._loop.run_forever()
            self._loop.run_until_complete(self._end())
        finally:
            self._loop.close()

    def _furnish(self) -> None:
        """Make what runs what is configured: end the devices that went or changed, begin those that are new."""
        # Wallboxes first: on a shared connection nobody's silence shall delay meeting them.
        devices: tuple[DeviceConfig, ...] = (*self._config.wallboxes, *self._config.meters)
        wanted = {device.id: device for device in devices if device.id in self._profiles}
        for name, (device, task) in list(self._devices.items()):
            new = wanted.get(name)
            if new is None or _essence(new) != _essence(device.config) or self._profiles[name] != device.profile:
                task.cancel()
                del self._devices[name]
                self._leave(device)
                if proxy := self._proxies.pop(name, None):
                    proxy.cancel()
        for place, (name, config) in enumerate(wanted.items()):
            if name not in self._devices:
                device = Device(config, self._profiles[name], self._link(config), place / len(wanted), self._post)
                device.link.attach(device)
                if device.duty:
                    device.duty.offered = partial(self._offered, name)
                if device.phases:
                    device.phases.wanted = partial(self._wanted, name)
                self._devices[name] = device, self._loop.create_task(device.run(), name=name)
                if door := self._doors.pop(name, None):
                    timeout_s = device.manners.timeout_ms / 1000
                    served = Proxy(name, device.link, device.unit, timeout_s, door).run()
                    self._proxies[name] = self._loop.create_task(served, name=f"{name}'s proxy")
        self._duties = {name: device.duty for name, (device, _) in self._devices.items() if device.duty}

    def _offered(self, box: str) -> Offered | None:
        snapshot = self._newest
        setpoint = snapshot.decision.setpoints.get(box) if snapshot else None
        return Offered(setpoint.current_a, snapshot.revision) if snapshot and setpoint else None

    def _wanted(self, box: str) -> Wanted | None:
        snapshot = self._newest
        setpoint = snapshot.decision.setpoints.get(box) if snapshot else None
        return Wanted(setpoint.phases, setpoint.current_a, snapshot.revision) if snapshot and setpoint else None

    def _link(self, config: DeviceConfig) -> Link:
        where = locate(config.address, self._profiles[config.id].connection)
        if where not in self._links:
            link = Link(where)
            self._links[where] = link, self._loop.create_task(link.run(), name=str(link))
        return self._links[where][0]

    def _leave(self, device: Device) -> None:
        """The connection stays as long as somebody uses it."""
        link = device.link
        if not link.detach(device):
            _, task = self._links.pop(link.where)
            task.cancel()

    async def _end(self) -> None:
        """Safe currents first, all boxes at once; then everything is let go."""
        left = (duty for box, duty in self._duties.items() if box not in self._kept)
        safe = [self._loop.create_task(duty.leave_safe()) for duty in left]
        if safe:
            done, _ = await asyncio.wait(safe, timeout=SAFE_S)
            for task in done:
                if isinstance(error := task.exception(), LinkError | ValueError):
                    logger.warning("a wallbox was not left at its safe current: %s", error)
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)


class _Selector(selectors.DefaultSelector):
    """Gives the loop's ``turn`` away while there is nothing to do but wait."""

    def __init__(self, turn: threading.Lock) -> None:
        super().__init__()
        self._turn = turn

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Wait for sockets."""
        self._turn.release()
        try:
            return super().select(timeout)
        finally:
            self._turn.acquire()


def _tell(duties: Iterable[Duty]) -> None:
    for duty in duties:
        duty.want()


def _essence(config: DeviceConfig) -> tuple[object, ...]:
    """What a device's connection depends on; the rest of its configuration only matters to the core."""
    return (
        (config.id, config.address, config.unit, config.poll_s)
        + ((config.lines,) if isinstance(config, WallboxConfig) else ())
        + ((config.role,) if isinstance(config, MeterConfig) else ())
    )
