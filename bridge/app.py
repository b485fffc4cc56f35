"""The wiring: makes hub and edges from a configuration, starts and stops them in order. No logic."""

from __future__ import annotations

import gc
import logging
import os
import re
import socket
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, tzinfo
from difflib import get_close_matches
from pathlib import Path
from typing import cast
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from bridge import config as configuration
from bridge.core.config import Config, DeviceConfig, MeterConfig, fed_by
from bridge.core.model import Now
from bridge.edge import Edge
from bridge.errors import ConfigError
from bridge.http.edge import HttpEdge
from bridge.http.passwords import PasswordFile
from bridge.hub import Hub
from bridge.modbus import load
from bridge.modbus.address import Where, locate
from bridge.modbus.edge import ModbusEdge
from bridge.modbus.profile import Profile, capability
from bridge.modbus.quantities import QUANTITIES
from bridge.mqtt.edge import MqttEdge
from bridge.schema import Leaf
from bridge.storage.edge import StorageEdge

logger = logging.getLogger(__name__)

PASSWORD_VARIABLE = "SMGW_BRIDGE_ADMIN_PASSWORD"


@dataclass(frozen=True, slots=True)
class Setup:
    """A configuration that was read and found right, with the profile of each of its devices by device id."""

    config: Config
    profiles: Mapping[str, Profile]


def prepare(path: Path) -> Setup:
    """Read a configuration and the profiles it names. Raises :class:`ConfigError` with every mistake."""
    profiles: dict[str, Profile] = {}

    def check(leaves: Sequence[Leaf]) -> Iterable[tuple[Leaf, str]]:
        named = next((leaf.value for leaf in leaves if leaf.path == "profiles"), ())
        own = folders(cast("str | Sequence[str]", named), path)
        for leaf in leaves:
            if place := re.fullmatch(r"(meters|wallboxes)\[\d+\]\.profile", leaf.path):
                name = str(leaf.value)
                if fed_by(name) != "modbus":
                    continue
                try:
                    profile = profiles[name] = load.load(name, own)
                except ConfigError as error:
                    yield from ((leaf, mistake) for mistake in error.mistakes)
                    continue
                if (place[1] == "wallboxes") != (profile.kind == "wallbox"):
                    yield leaf, f"{name} is the profile of a {profile.kind}"
                elif place[1] == "wallboxes" and capability(profile) is None:
                    yield leaf, f"{name} has no setpoint: such a box cannot be controlled"
        yield from _unreachable(leaves, profiles)
        yield from _strangers(leaves, profiles)
        yield from _misspelt(leaves)

    config = configuration.load(path, check)
    by_id = {device.id: profiles[device.profile] for device in config.devices if device.fed_by == "modbus"}
    able = {id: known for id, profile in by_id.items() if (known := capability(profile))}
    boxes = (box.able(able[box.id]) if box.id in able else box for box in config.wallboxes)
    return Setup(replace(config, wallboxes=tuple(boxes)), by_id)


def _unreachable(leaves: Sequence[Leaf], profiles: Mapping[str, Profile]) -> Iterable[tuple[Leaf, str]]:
    """Addresses that cannot be used, and devices that share a connection but want to be talked to differently."""
    places = {leaf.path: leaf for leaf in leaves}
    first: dict[tuple[str, int], tuple[str, Where]] = {}
    for leaf in leaves:
        if isinstance(leaf.value, DeviceConfig) and leaf.value.profile in profiles and leaf.value.address:
            place = places.get(f"{leaf.path}.address", leaf)
            try:
                where = locate(leaf.value.address, profiles[leaf.value.profile].connection)
            except ConfigError as error:
                yield from ((place, mistake) for mistake in error.mistakes)
                continue
            other, there = first.setdefault((where.host, where.port), (leaf.value.id, where))
            if there != where:
                yield place, f"{other} shares {where} and speaks {there.spoken}, this device {where.spoken}"


def _strangers(leaves: Sequence[Leaf], profiles: Mapping[str, Profile]) -> Iterable[tuple[Leaf, str]]:
    """Inverters and batteries as grid meters that do not know the house connection, only themselves."""
    places = {leaf.path: leaf for leaf in leaves}
    for leaf in leaves:
        if isinstance(leaf.value, MeterConfig) and leaf.value.role == "grid":
            profile = profiles.get(leaf.value.profile)
            if profile and profile.kind in ("inverter", "battery") and "grid" not in profile.roles:
                yield places[f"{leaf.path}.role"], f"{profile.id} does not measure the house connection"


def _misspelt(leaves: Sequence[Leaf]) -> Iterable[tuple[Leaf, str]]:
    """Quantities that are fed or worked out under a name nobody knows."""
    for leaf in leaves:
        named = re.fullmatch(r"(meters|wallboxes)\[\d+\]\.(topics|values)\.(\w+)", leaf.path)
        if named and leaf.value == named[3] and leaf.value not in QUANTITIES:
            close = get_close_matches(named[3], QUANTITIES, n=1)
            yield leaf, "no such quantity" + (f" (did you mean {close[0]}?)" if close else "")


def folders(named: str | Sequence[str], path: Path) -> list[Path]:
    """The user's own profile folders; relative ones start where the configuration file is."""
    return [path.parent / folder for folder in ([named] if isinstance(named, str) else named)]


class App:
    """The running bridge."""

    hub: Hub

    def __init__(self, setup: Setup, state_dir: Path) -> None:
        self.passwords = PasswordFile(state_dir / "admin-password")
        storage = StorageEdge(state_dir, lambda event: self.hub.post(event))
        zone = local_zone()
        state = storage.load()
        self.hub = Hub(setup.config, state, lambda: Now(time.monotonic(), time.time(), zone), fed=Watchdog())
        modbus = ModbusEdge(setup.config, setup.profiles, self.hub.post)
        mqtt = MqttEdge(setup.config, self.hub)
        http = HttpEdge(setup.config, self.hub, self.passwords, [modbus.metrics, mqtt.metrics])
        # The order of offers: registers first, then what must be on disk, then the faces.
        self._edges: list[Edge] = [modbus, storage, mqtt, http]

    def start(self) -> None:
        """Start every edge, then the hub. Raises OSError, naming the address, when one cannot be used."""
        if password := os.environ.pop(PASSWORD_VARIABLE, ""):
            try:
                self.passwords.ensure(password)
            except ValueError as error:
                raise ConfigError([f"${PASSWORD_VARIABLE}: {error}"]) from error
        # Many small threads share one interpreter: the one with a register to write shall not wait 5 ms for it.
        sys.setswitchinterval(0.0005)
        started: list[Edge] = []
        try:
            for edge in self._edges:
                edge.start()
                started.append(edge)
        except BaseException:
            for edge in reversed(started):
                edge.stop()
            raise
        self.hub.start(self._edges)
        # What lives as long as the process need not be looked at again by every garbage collection.
        gc.collect()
        gc.freeze()
        notify("READY=1")

    def stop(self) -> None:
        """End within two seconds: no more requests, wallboxes at a safe current, everything on disk."""
        notify("STOPPING=1")
        for edge in reversed(self._edges[2:]):
            edge.stop()
        self._edges[0].stop()
        self.hub.stop()
        self._edges[1].stop()


def local_zone() -> tzinfo:
    """The time zone of the machine, with its summer time rules."""
    try:
        if name := os.environ.get("TZ", "").lstrip(":"):
            return ZoneInfo(name)
        with open("/etc/localtime", "rb") as file:
            return ZoneInfo.from_file(file, key="local")
    except (OSError, ValueError, ZoneInfoNotFoundError):
        return UTC


class Watchdog:
    """Feeds the service manager's watchdog, at most once a second; called after each healthy round."""

    def __init__(self) -> None:
        self._fed = 0.0

    def __call__(self) -> None:
        """Feed, unless it was done within the last second."""
        now = time.monotonic()
        if now - self._fed >= 1.0:
            self._fed = now
            notify("WATCHDOG=1")


def notify(text: str) -> None:
    """Tell systemd (sd_notify(3)); without it nothing happens."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
        try:
            channel.sendto(text.encode(), "\0" + address[1:] if address.startswith("@") else address)
        except OSError as error:
            logger.debug("the service manager could not be told %s: %s", text, error)
