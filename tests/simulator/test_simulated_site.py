"""The site on real sockets, asked by an independent client (mbpoll, which is built on libmodbus)."""

import re
import shutil
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from importlib import resources

import pytest

from bridge.config import load
from bridge.core.config import Config, GridConfig, MeterConfig, WallboxConfig
from bridge.core.formulas import parse
from bridge.errors import BridgeError, ConfigError
from bridge.simulator.site import METERS, WALLBOXES, Site

FREE = "127.0.0.1:0"
METER = MeterConfig("M1", "eastron-sdm630", FREE, role="grid")
BOXES = (
    WallboxConfig("E1", "keba-p30", FREE, unit=255),
    WallboxConfig("E2", "heidelberg_ec", FREE),
    WallboxConfig("E3", "cfos-power-brain", FREE),
)


def config(*wallboxes: WallboxConfig, meters: tuple[MeterConfig, ...] = ()) -> Config:
    return Config(GridConfig(parse(43_500)), meters=meters, wallboxes=wallboxes)


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site(config(*BOXES, meters=(METER,)), seed=1)
    site.start()
    yield site
    site.stop()


def connect(site: Site, id: str) -> socket.socket:
    host, _, port = site.address(id).rpartition(":")
    return socket.create_connection((host, int(port)), timeout=0.5)


def ask(peer: socket.socket, unit: int, pdu: bytes) -> bytes:
    peer.sendall(struct.pack(">HHHB", 7, 0, len(pdu) + 1, unit) + pdu)
    reply = peer.recv(260)
    if not reply:
        raise ConnectionResetError
    assert reply[:6] == struct.pack(">HHH", 7, 0, len(reply) - 6)
    return reply[7:]


def until(holds: Callable[[], bool], timeout_s: float = 10.0) -> bool:
    """Wait for what the physics will bring."""
    end = time.monotonic() + timeout_s
    while not holds() and time.monotonic() < end:
        time.sleep(0.05)
    return holds()


def mbpoll(site: Site, id: str, unit: int, kind: str, address: int, *write: int, count: int = 1) -> list[str]:
    """The values mbpoll read, or [] after it wrote."""
    program = shutil.which("mbpoll")
    if program is None:
        pytest.skip("mbpoll is not installed")
    host, _, port = site.address(id).rpartition(":")
    options = f"-0 -1 -B -m tcp -p {port} -a {unit} -t {kind} -r {address} -o 1".split()
    options += [] if write else ["-c", str(count)]
    done = subprocess.run(
        [program, *options, host, *map(str, write)], capture_output=True, text=True, timeout=10, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return re.findall(r"^\[\d+\]:\s*(\S+)", done.stdout, re.MULTILINE)


@pytest.mark.system("mbpoll")
def test_an_independent_client_reads_and_writes_every_map(site: Site) -> None:
    assert mbpoll(site, "E1", 255, "4:int", 1016) == ["315221"]
    mbpoll(site, "E1", 255, "4", 5004, 9000)
    assert mbpoll(site, "E1", 255, "4:int", 1100) == ["9000"]
    assert mbpoll(site, "E2", 1, "3:hex", 4) == ["0x0108"]
    mbpoll(site, "E2", 1, "4", 261, 99, 60)
    assert mbpoll(site, "E2", 1, "4", 261, count=2) == ["99", "60"]
    assert mbpoll(site, "E3", 1, "4:hex", 8000) == ["0xCF05"]
    mbpoll(site, "E3", 1, "4", 8093, 123)
    assert mbpoll(site, "E3", 1, "4", 8093, count=2) == ["123", "1"]
    volts = [float(text) for text in mbpoll(site, "M1", 1, "3:float", 0, count=3)]
    assert volts == pytest.approx([230.0] * 3, abs=5.0)


def test_cars_come_by_themselves_and_charge() -> None:
    site = Site(config(*BOXES), speed=20.0)
    site.start()
    try:
        assert until(lambda: all(box.car.state == "C" for box in site.wallboxes.values()))
    finally:
        site.stop()


def test_plug_and_unplug(site: Site) -> None:
    site.plug("E3")
    assert site.wallboxes["E3"].car.plugged
    site.unplug("E3")
    with connect(site, "E3") as peer:
        assert ask(peer, 1, b"\x03" + struct.pack(">HH", 8092, 1)) == b"\x03\x02\x00\x00"


def test_reboot_drops_connections_and_registers(site: Site) -> None:
    read_setpoint = b"\x03" + struct.pack(">HH", 261, 1)
    with connect(site, "E2") as peer:
        ask(peer, 1, b"\x06" + struct.pack(">HH", 261, 60))
        assert ask(peer, 1, read_setpoint) == b"\x03\x02" + struct.pack(">H", 60)
        site.reboot("E2")
        with pytest.raises(ConnectionError):
            ask(peer, 1, read_setpoint)
    with connect(site, "E2") as peer:
        assert ask(peer, 1, read_setpoint) == b"\x03\x02" + struct.pack(">H", 160)


def test_hang_accepts_and_never_answers(site: Site) -> None:
    request = b"\x04" + struct.pack(">HH", 4, 1)
    site.hang("E2", True)
    with connect(site, "E2") as peer, pytest.raises(TimeoutError):
        ask(peer, 1, request)
    site.hang("E2", False)
    with connect(site, "E2") as peer:
        assert ask(peer, 1, request) == b"\x04\x02\x01\x08"


def test_away_refuses_and_comes_back_where_it_was(site: Site) -> None:
    address = site.address("M1")
    with connect(site, "M1") as peer:
        site.away("M1", True)
        with pytest.raises(ConnectionError):
            ask(peer, 1, b"\x04" + struct.pack(">HH", 0, 2))
    with pytest.raises(ConnectionRefusedError):
        connect(site, "M1")
    site.away("M1", False)
    assert site.address("M1") == address
    connect(site, "M1").close()


def test_garbage_ends_the_connection_and_nothing_else(site: Site) -> None:
    with connect(site, "E2") as peer:
        peer.sendall(b"GET /cn")
        assert peer.recv(100) == b""
    with connect(site, "E2") as peer:
        assert ask(peer, 1, b"\x04" + struct.pack(">HH", 4, 1)) == b"\x04\x02\x01\x08"


def test_devices_elsewhere_are_left_alone() -> None:
    far = WallboxConfig("E9", "keba-p30", "192.0.2.1:502")
    site = Site(config(far, BOXES[0]))
    assert list(site.wallboxes) == ["E1"]


def test_mistakes_are_told_all_at_once_with_what_is_possible() -> None:
    boxes = (WallboxConfig("E7", "goe", "localhost:1"), WallboxConfig("E8", "eastron-sdm630", "[::1]:2"))
    with pytest.raises(ConfigError) as caught:
        Site(config(*boxes))
    assert len(caught.value.mistakes) == 2
    assert "E7: profile goe is not simulated, only keba-p30, heidelberg-ec, cfos-power-brain" in str(caught.value)
    with pytest.raises(ConfigError, match="nothing to simulate"):
        Site(config())


def test_an_address_in_use_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        site = Site(config(WallboxConfig("E1", "keba-p30", address)))
        with pytest.raises(BridgeError, match=f"E1: cannot listen on {address}"):
            site.start()
    site.stop()


def test_the_demo_can_be_simulated_and_shows_every_register_map() -> None:
    with resources.as_file(resources.files("bridge.simulator") / "demo.yaml") as path:
        demo = load(path)
    site = Site(demo)
    assert {type(box) for box in site.wallboxes.values()} == set(WALLBOXES.values())
    assert {type(meter) for meter in site.meters.values()} == set(METERS.values())
