"""The wiring: makes hub and edges from a configuration, starts and stops them in order. No logic."""

from __future__ import annotations

import gc
import logging
import os
import random
import re
import socket
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, tzinfo
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Protocol, cast, runtime_checkable
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from bridge import config as configuration
from bridge.core.config import Config, DeviceConfig, MeterConfig, WallboxConfig, fed_by
from bridge.core.model import Now
from bridge.core.records.certificates import uses
from bridge.edge import Edge
from bridge.errors import ConfigError
from bridge.gpio.edge import GpioEdge
from bridge.http.administration import Administration
from bridge.http.door import Secure, Secured
from bridge.http.edge import HttpEdge, bind
from bridge.http.metrics import Sample
from bridge.http.passwords import PasswordFile
from bridge.hub import Hub
from bridge.modbus import load
from bridge.modbus.address import Where, locate
from bridge.modbus.edge import ModbusEdge
from bridge.modbus.plan import sweep_s
from bridge.modbus.profile import Profile, capability
from bridge.modbus.quantities import QUANTITIES
from bridge.mqtt.edge import MqttEdge
from bridge.mqtt.link import address
from bridge.parts import Part, Parts
from bridge.schema import Leaf
from bridge.smgw import admission
from bridge.smgw.administration import Administration as Certificates
from bridge.smgw.contexts import web_context
from bridge.smgw.edge import SmgwEdge
from bridge.smgw.following import Following
from bridge.smgw.store import Store
from bridge.smgw.watch import Watch
from bridge.storage.configfile import ConfigFile
from bridge.storage.edge import StorageEdge
from bridge.storage.reading import span

logger = logging.getLogger(__name__)

GARBAGE = 10_000
"""So many more objects than at the last garbage collection make another one."""

PASSWORD_VARIABLE = "SMGW_BRIDGE_ADMIN_PASSWORD"


@dataclass(frozen=True, slots=True)
class Setup:
    """A configuration that was read and found right, with the profile of each of its devices by device id.

    ``path`` and ``state_dir`` are what :func:`prepare` was given.
    """

    config: Config
    profiles: Mapping[str, Profile]
    path: Path
    state_dir: str | None = None


def prepare(
    path: Path,
    state_dir: str | None = None,
    certificates: bool = True,
    text: str | None = None,
    running: Config | None = None,
) -> Setup:
    """Read a configuration, the profiles it names and its certificates. Raises :class:`ConfigError` with every mistake.

    ``state_dir`` comes before what the file says. Without ``certificates`` these do not matter. ``text`` is what the
    file shall hold; ``running`` is in force now, and what cannot follow it is a mistake, too.
    """
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
        yield from _folderless(leaves, path)
        yield from _unreachable(leaves, profiles)
        yield from _doubles(leaves, profiles)
        yield from _unswitchable(leaves, profiles)
        yield from _strangers(leaves, profiles)
        yield from _misspelt(leaves)
        if running:
            yield from _unfollowable(leaves, running)
        if not certificates:
            return
        said = next((str(leaf.value) for leaf in leaves if leaf.path == "state_dir"), None)
        yield from admission.mistakes(leaves, store_in(configuration.state_dir(state_dir or said, None)))

    config = configuration.load(path, check, text)
    by_id = {device.id: profiles[device.profile] for device in config.devices if device.fed_by == "modbus"}
    lines = {box.id: len(box.lines) for box in config.wallboxes}
    able = {id: known for id, count in lines.items() if id in by_id and (known := capability(by_id[id], count))}
    sweeps = {id: sweep_s(profile) for id, profile in by_id.items()}
    meters = tuple(meter.paced(sweeps.get(meter.id, 0.0)) for meter in config.meters)
    boxes = (box.able(able[box.id]) if box.id in able else box for box in config.wallboxes)
    paced = tuple(box.paced(sweeps.get(box.id, 0.0)) for box in boxes)
    return Setup(replace(config, meters=meters, wallboxes=paced), by_id, path, state_dir)


def _folderless(leaves: Sequence[Leaf], path: Path) -> Iterable[tuple[Leaf, str]]:
    """Folders of profiles that are not there."""
    for leaf in leaves:
        if re.fullmatch(r"profiles(\[\d+\])?", leaf.path) and isinstance(leaf.value, str):
            (folder,) = folders(leaf.value, path)
            if not folder.is_dir():
                yield leaf, f"there is no folder {folder}"


def _unswitchable(leaves: Sequence[Leaf], profiles: Mapping[str, Profile]) -> Iterable[tuple[Leaf, str]]:
    """Wallboxes whose phases shall be switched although that cannot be."""
    places = {leaf.path: leaf for leaf in leaves}
    for leaf in leaves:
        if isinstance(leaf.value, WallboxConfig) and leaf.value.phase_switching != "off":
            profile = profiles.get(leaf.value.profile)
            if profile is None or profile.phases is None:
                yield places[f"{leaf.path}.phase_switching"], f"{leaf.value.profile} does not switch its phases"
            elif len(leaf.value.lines) != len(leaf.value.rotation):
                yield places[f"{leaf.path}.phase_switching"], "only a wallbox on three lines is switched"


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


def _doubles(leaves: Sequence[Leaf], profiles: Mapping[str, Profile]) -> Iterable[tuple[Leaf, str]]:
    """Wallboxes that are there twice: two setpoints would fight for one box."""
    first: dict[tuple[str, str, int], WallboxConfig] = {}
    for leaf in leaves:
        if isinstance(box := leaf.value, WallboxConfig) and box.profile in profiles and box.address:
            unit = profiles[box.profile].connection.unit if box.unit is None else box.unit
            other = first.setdefault((box.profile, box.address, unit), box)
            if other is not box and not box.address.endswith(":0"):  # 0: the simulator takes a port that is free
                yield leaf, f"this is the same wallbox as {other.id}: {box.profile} at {box.address}, unit {unit}"


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


def _unfollowable(leaves: Sequence[Leaf], running: Config) -> Iterable[tuple[Leaf, str]]:
    """What the running bridge cannot do: go elsewhere with its state, listen where it may not."""
    state_dir = next((leaf for leaf in leaves if leaf.path == "state_dir"), Leaf("state_dir", 1, None))
    if state_dir.value != running.state_dir:
        yield state_dir, "stays as it is while the bridge runs: edit the file and restart the service"
    smgw = [running.smgw.listen] if running.smgw else []
    used = filter(None, (running.http.listen, *smgw, *(device.proxy for device in running.devices)))
    ports = {address.rpartition(":")[2] for address in used}
    for leaf in leaves:
        door = re.fullmatch(r"(http|smgw)\.listen|(meters|wallboxes)\[\d+\]\.proxy", leaf.path) and leaf.value
        # Who could listen on a port that is ours already is not known before we let go of it.
        if door and str(door).rpartition(":")[2] not in ports:
            try:
                bind(str(door)).close()
            except (OSError, OverflowError) as error:
                yield leaf, str(error.strerror if isinstance(error, OSError) else error)


def folders(named: str | Sequence[str], path: Path) -> list[Path]:
    """The user's own profile folders; relative ones start where the configuration file is."""
    return [path.parent / folder for folder in ([named] if isinstance(named, str) else named)]


def store_in(state_dir: Path, config: Callable[[], Config | None] = lambda: None) -> Store:
    """The certificates of the house; ``config`` tells what they are used for."""
    return Store(state_dir / "certificates", unfit=lambda made, load: admission.unfit(config(), made, load))


def secured(config: Config, store: Store) -> Mapping[str, Secure]:
    """How each door that speaks TLS is secured, by its name. Raises BridgeError when it cannot be."""
    found: dict[str, Secure] = {}
    if lan := config.http.certificate:
        found["lan"] = Following(store, [lan], lambda: Secured(web_context(store.load(lan))))
    if (smgw := config.smgw) and smgw.listen and smgw.tls:
        found["smgw"] = Following(store, admission.names(smgw), lambda: Secured(*admission.admitted(store, smgw)))
    return found


@runtime_checkable
class Measured(Protocol):
    """An edge that has something to count."""

    def metrics(self) -> Iterable[Sample]:
        """Samples for Prometheus."""


class App:
    """The running bridge."""

    hub: Hub

    def __init__(self, setup: Setup, state_dir: Path) -> None:
        self.passwords = PasswordFile(state_dir / "admin-password")
        self._store = store_in(state_dir, lambda: self.hub.snapshot.config)
        self._journal = partial(span, state_dir)
        self._kept: dict[str, socket.socket] = {}
        zone = local_zone()
        self._storage = StorageEdge(state_dir, lambda event: self.hub.post(event), zone)
        # Houses that are released together shall not all come back in the same second.
        state = replace(self._storage.load(), lot=random.random())
        self.hub = Hub(setup.config, state, lambda: Now(time.monotonic(), time.time(), zone), fed=Watchdog())
        self._watch = Watch(self._store, self.hub.post)
        self.file = ConfigFile(setup.path, self._prepare, lambda setup: self._parts.exchange(setup), self._closes_doors)
        self._smgw = SmgwEdge(setup.config, self._store, self._admit)
        # The order of offers: registers first, then what must be on disk, then the faces.
        parts: dict[str, Part[Setup]] = {
            "modbus": Part(self._modbus, lambda setup: (setup.config.devices, setup.profiles)),
            "storage": Part(lambda setup: self._storage),
            "mqtt": Part(self._mqtt, lambda setup: setup.config.mqtt.tunnel and setup.config.mqtt.url),
            "gpio": Part(lambda setup: GpioEdge(setup.config, self.hub.post), lambda setup: setup.config.meters),
            "certificates": Part(lambda setup: self._watch),
            "http": Part(self._http, lambda setup: (setup.config.http, setup.config.smgw)),
            "smgw": Part(lambda setup: self._smgw),
        }
        self._parts = Parts(self.hub, parts, setup)

    def start(self) -> None:
        """Start every edge, then the hub. Raises OSError, naming the address, when one cannot be used."""
        if password := os.environ.pop(PASSWORD_VARIABLE, ""):
            try:
                self.passwords.ensure(password)
            except ValueError as error:
                raise ConfigError([f"${PASSWORD_VARIABLE}: {error}"]) from error
        # Many small threads share one interpreter: the one with a register to write shall not wait 5 ms for it.
        sys.setswitchinterval(0.0005)
        self._parts.start()
        # What lives as long as the process need not be looked at again by every garbage collection. What a round makes
        # goes without one, so they may be rare: each holds up a set for half a millisecond.
        gc.collect()
        gc.freeze()
        gc.set_threshold(GARBAGE)
        notify("READY=1")

    def stop(self) -> None:
        """End within two seconds: no more requests, wallboxes at a safe current, everything on disk."""
        notify("STOPPING=1")
        self.file.close()
        edges = dict(self._parts.edges)
        modbus, storage = edges.pop("modbus"), edges.pop("storage")
        for edge in reversed(edges.values()):
            edge.stop()
        modbus.stop()
        self.hub.stop()
        storage.stop()

    def _modbus(self, setup: Setup) -> Edge:
        return ModbusEdge(setup.config, setup.profiles, self.hub.post)

    def _mqtt(self, setup: Setup) -> Edge:
        if not setup.config.mqtt.tunnel:
            return MqttEdge(setup.config, self.hub)
        broker = address(setup.config.mqtt)
        via = self._smgw.relay(broker.host, broker.port)
        return MqttEdge(setup.config, self.hub, via, lambda: self._smgw.is_open(broker.host, broker.port))

    def _admit(self, wire: socket.socket, certificate: str) -> None:
        """Let a connection that was opened from here through the gateway in at the SMGW door."""
        http = self._parts.edges["http"]
        assert isinstance(http, HttpEdge)
        http.admit(wire, certificate)

    def _http(self, setup: Setup) -> Edge:
        certificates = Certificates(self._store, lambda: uses(self.hub.snapshot.config), self._watch.look)
        return HttpEdge(
            setup.config,
            self.hub,
            self.passwords,
            [self._samples],
            secured=secured(setup.config, self._store),
            journal=self._journal,
            archive=self._storage,
            administration=Administration(self.file, certificates),
            kept=self._kept,
        )

    def _samples(self) -> Iterable[Sample]:
        for edge in list(self._parts.edges.values()):
            if isinstance(edge, Measured):
                yield from edge.metrics()

    def _prepare(self, text: str | None) -> Setup:
        running = self._parts.setup
        return prepare(running.path, running.state_dir, text=text, running=running.config)

    def _closes_doors(self, setup: Setup) -> bool:
        return "http" in self._parts.outdated(setup)


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
