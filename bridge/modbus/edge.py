"""The Modbus edge: one thread with one event loop for all connections."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterable, Mapping

from bridge.core.model import Config, DeviceConfig, MeterConfig, Snapshot, WallboxConfig
from bridge.edge import Post
from bridge.errors import LinkError
from bridge.modbus.device import Device
from bridge.modbus.duty import Duty, Offered
from bridge.modbus.link import Link
from bridge.modbus.load import host_port
from bridge.modbus.profile import Profile

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
        self._thread = threading.Thread(target=self._run, name="modbus", daemon=True)
        self._links: dict[tuple[str, int, str], tuple[Link, asyncio.Task[None]]] = {}
        self._devices: dict[str, tuple[Device, asyncio.Task[None]]] = {}
        self._duties: Mapping[str, Duty] = {}
        self._started = threading.Event()

    # ------------------------------------------------------------------------------------------- for the hub

    def start(self) -> None:
        """Begin to connect and to read."""
        self._loop = asyncio.new_event_loop()
        self._thread.start()
        self._started.wait()

    def offer(self, snapshot: Snapshot) -> None:
        """Take notice: nothing but comparing, and one wake-up of the loop if a setpoint or the setup changed."""
        if self._stopping:
            return
        self._newest = snapshot
        if snapshot.config is not self._config:
            self._config = snapshot.config
            self._loop.call_soon_threadsafe(self._follow)
        changed = None
        for box, duty in self._duties.items():
            setpoint = snapshot.decision.setpoints.get(box)
            if setpoint is None:
                continue
            before = duty.offered
            duty.offered = Offered(setpoint.current_a, snapshot.revision)
            if before is None or before.amperes != setpoint.current_a:
                changed = [duty] if changed is None else [*changed, duty]
        if changed:
            self._loop.call_soon_threadsafe(_tell, changed)

    def stop(self) -> None:
        """Leave the wallboxes at a safe current and end, within a second."""
        self._stopping = True
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(1.0)

    def metrics(self) -> Iterable[Metric]:
        """What there is to count: writes per register, timeouts, connections made, polls and how late they came."""
        for (host, port, _), (link, _) in list(self._links.items()):
            labels = {"address": f"{host}:{port}"}
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

    def _follow(self) -> None:
        """The configuration changed: new wallboxes have not been offered anything yet."""
        self._furnish()
        if self._newest is not None:
            self.offer(self._newest)

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
        for place, (name, config) in enumerate(wanted.items()):
            if name not in self._devices:
                device = Device(config, self._profiles[name], self._link(config), place / len(wanted), self._post)
                device.link.attach(device)
                self._devices[name] = device, self._loop.create_task(device.run(), name=name)
        self._duties = {name: device.duty for name, (device, _) in self._devices.items() if device.duty}

    def _link(self, config: DeviceConfig) -> Link:
        manners = self._profiles[config.id].connection
        host, port = host_port(config.address, manners.port)
        key = (host, port, manners.framing)
        if key not in self._links:
            link = Link(*key)
            self._links[key] = link, self._loop.create_task(link.run(), name=str(link))
        return self._links[key][0]

    def _leave(self, device: Device) -> None:
        """The connection stays as long as somebody uses it."""
        link = device.link
        if not link.detach(device):
            _, task = self._links.pop((link.host, link.port, link.framing))
            task.cancel()

    async def _end(self) -> None:
        """Safe currents first, all boxes at once; then everything is let go."""
        safe = [self._loop.create_task(duty.leave_safe()) for duty in self._duties.values()]
        if safe:
            done, _ = await asyncio.wait(safe, timeout=SAFE_S)
            for task in done:
                if isinstance(error := task.exception(), LinkError | ValueError):
                    logger.warning("a wallbox was not left at its safe current: %s", error)
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)


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
