"""The edge against servers made by others: libmodbus and pymodbus, TCP and RTU framing."""

from __future__ import annotations

import asyncio
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from pymodbus import FramerType
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

from bridge.modbus.probe import probe
from tests.modbus.house import BOX, WAIT_S, House, box, profile

EVERYTHING = """
vendor: Test
model: Peer
kind: wallbox
points:
  state: {address: 100, values: {3: C}}
  power_w: {address: 10, type: u32, read: 4}
  import_wh: {address: 12, type: u64}
  coil: {address: 9, type: bool, read: 1}
  input: {address: 10, type: bool, read: 2}
  voltage_v: {address: 9000}
  set_one: {address: 20}
  set_two: {address: 21, type: u32}
derived: {phases: coil + 2 * input}
init: [{point: set_two, value: 70000}, {point: coil, value: 0}]
setpoint: {points: [set_one]}
"""


@pytest.fixture(scope="module")
def libmodbus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    program = tmp_path_factory.mktemp("peer") / "peer"
    source = Path(__file__).with_name("peer.c")
    subprocess.run(["gcc", "-I/usr/include/modbus", "-o", program, source, "-lmodbus"], check=True)
    with subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as peer:
        assert peer.stdout is not None
        yield f"127.0.0.1:{int(peer.stdout.readline())}"
        assert peer.stdin is not None
        peer.stdin.close()


@pytest.mark.system("gcc", "libmodbus")
def test_all_functions_against_libmodbus(libmodbus: str) -> None:
    rows = {row.quantity: row for row in probe(libmodbus, profile(EVERYTHING), 1)}
    assert rows["state"].value == "C"
    assert rows["power_w"].value == (10 << 16) + 11
    assert rows["import_wh"].value == (12 << 48) + (13 << 32) + (14 << 16) + 15
    assert (rows["coil"].value, rows["input"].value) == (1.0, 0.0)
    assert rows["voltage_v"].value is None
    assert rows["voltage_v"].note == "the device does not have it"
    with House([(box("E1", libmodbus), EVERYTHING)]) as house:
        assert house.online("E1")
        house.offer(E1=16.0)
        assert house.holds("E1", 16.0)
        assert house.until(lambda: house.newest("E1")["phases"] == 0.0), "the coil was written"
    rows = {row.quantity: row for row in probe(libmodbus, profile(EVERYTHING), 1)}
    assert rows["set_two"].value == 70000.0


@pytest.mark.system("gcc", "libmodbus")
def test_probing_never_writes(libmodbus: str) -> None:
    counter = profile(BOX.replace("address: 101, type: u32", "address: 8"))
    before = next(row.value for row in probe(libmodbus, counter, 1) if row.quantity == "power_w")
    probe(libmodbus, profile(EVERYTHING), 1)
    assert next(row.value for row in probe(libmodbus, counter, 1) if row.quantity == "power_w") == before


class Served:
    """pymodbus' own server in a thread."""

    def __init__(self, framer: FramerType) -> None:
        self._ready = threading.Event()
        self._framer = framer
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)

    async def _serve(self) -> None:
        self._loop, self._over = asyncio.get_running_loop(), asyncio.Event()
        registers = SimData(100, values=[3, 0, 1000, *[0] * 97, 160], datatype=DataType.REGISTERS)
        server = ModbusTcpServer(SimDevice(1, registers), framer=self._framer, address=("127.0.0.1", 0))
        await server.serve_forever(background=True)
        self.address = f"127.0.0.1:{server.transport.sockets[0].getsockname()[1]}"
        self._ready.set()
        await self._over.wait()
        await server.shutdown()

    def __enter__(self) -> Served:
        self._thread.start()
        assert self._ready.wait(WAIT_S)
        return self

    def __exit__(self, *args: object) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(WAIT_S)


@pytest.mark.parametrize(("framer", "framing"), [(FramerType.SOCKET, "tcp"), (FramerType.RTU, "rtu")])
def test_pymodbus_and_both_framings(framer: FramerType, framing: str) -> None:
    with Served(framer) as server:
        text = BOX + f"connection: {{framing: {framing}}}\n"
        with House([(box("E1", server.address), text)]) as house:
            assert house.online("E1")
            assert house.newest("E1") == {"state": "C", "power_w": 1000.0}
            house.offer(E1=10.0)
            assert house.holds("E1", 10.0)
