"""The same device by TCP, by RTU and ASCII through a gateway, and on a serial line."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bridge import app
from bridge.core.events import Link
from bridge.errors import ConfigError
from bridge.modbus.address import Where, locate
from bridge.modbus.load import load
from bridge.modbus.probe import probe
from bridge.modbus.profile import Connection, Serial
from tests.modbus.house import BOX, METER, House, box, meter
from tests.modbus.rogue import Asked, Rogue

QUICK = "connection: {timeout_ms: 100}\n"


@pytest.fixture(params=["tcp", "rtu", "ascii"])
def rogue(request: pytest.FixtureRequest) -> Iterator[Rogue]:
    server = Rogue(framing=request.param)
    server.registers[1].update({100: 3, 200: 160})
    yield server
    server.close()


def test_the_address_says_how_a_gateway_is_spoken_to(rogue: Rogue) -> None:
    with House([(box("E1", f"{rogue.framing}://{rogue.address}"), BOX)]) as house:
        assert house.met("E1")
        house.offer(E1=10.0)
        assert house.holds("E1", 10.0)
        assert rogue.registers[1][200] == 100


def test_the_profile_says_it_too(rogue: Rogue) -> None:
    with House([(box("E1", rogue.address), BOX + f"connection: {{framing: {rogue.framing}}}\n")]) as house:
        assert house.met("E1")


@pytest.mark.parametrize("framing", ["rtu", "ascii"])
def test_several_devices_on_a_serial_line(framing: str) -> None:
    server = Rogue(framing=framing)
    server.registers[1].update({100: 3, 200: 160})
    server.registers[2].update({11: 1000, 12: 2300})
    line, manners = server.on_a_line(), f"connection: {{framing: {framing}, timeout_ms: 100}}\n"
    try:
        devices = [
            (box("E1", line), BOX + manners),
            (meter("M1", f"serial://{line}?baud=9600&parity=N", unit=2), METER + manners),
        ]
        with House(devices) as house:
            assert house.met("E1")
            assert house.online("M1")
            house.offer(E1=10.0)
            assert house.holds("E1", 10.0)
            assert house.newest("M1")["voltage_l1_v"] == 230.0
            assert len(house.edge._links) == 1
            server.silent = {1, 2}
            assert house.until(lambda: not house.of(Link, "E1")[-1].online)  # type: ignore[attr-defined]
            server.silent = set()
            house.offer(E1=8.0)
            assert house.holds("E1", 8.0)
            assert house.online("M1")
    finally:
        server.close()


def test_frames_on_a_line_are_apart_by_its_silence() -> None:
    server = Rogue(framing="rtu")
    server.registers[1].update({100: 3, 200: 160})
    line = server.on_a_line()
    try:
        with House([(box("E1", f"{line}?baud=1200"), BOX)]) as house:
            assert house.met("E1")
            assert house.until(lambda: len(house.reads("E1")) > 3)
            gaps = [b.at - a.at for a, b in zip(server.asked, server.asked[1:], strict=False)]
            assert min(gaps) >= 3.5 * 11 / 1200
    finally:
        server.close()


def test_a_line_that_is_not_there_is_a_state_and_comes_back_by_itself(tmp_path: Path) -> None:
    server = Rogue(framing="rtu")
    server.registers[1].update({100: 3, 200: 160})
    place = tmp_path / "ttyUSB0"
    try:
        with House([(box("E1", str(place)), BOX)]) as house:
            assert house.until(lambda: house.of(Link, "E1"))
            (link,) = house.of(Link, "E1")
            assert isinstance(link, Link)
            assert not link.online
            assert "could not open port" in link.reason
            place.symlink_to(server.on_a_line())
            assert house.online("E1")
    finally:
        server.close()


# ---------------------------------------------------------------------------------------- devices that sleep


def sleepy(seconds: float) -> str:
    return BOX + f"connection: {{framing: ascii, repeat: 2, timeout_ms: {seconds * 1000:.0f}}}\n"


@pytest.mark.parametrize("wakes", [False, True], ids=["answers both", "sleeps through the first"])
def test_a_sleeping_device_is_asked_twice_and_the_second_answer_counts(wakes: bool) -> None:
    server = Rogue(framing="ascii")
    server.registers[1].update({100: 3, 200: 160})
    seen: list[Asked] = []

    def manners(asked: Asked, frame: bytes) -> bytes | None:
        seen.append(asked)
        first = len(seen) % 2
        if first and not wakes:
            server.registers[1][101] = 1  # what it says half asleep
            return frame
        return None if first else frame

    server.manners = manners
    try:
        with House([(box("E1", server.address), sleepy(0.25))]) as house:
            assert house.met("E1")
            house.offer(E1=10.0)
            assert house.holds("E1", 10.0)
            twice = [(a.function, a.address, a.words) for a in server.asked]
            assert all(a == b for a, b in zip(twice[::2], twice[1::2], strict=False))
            assert server.accepted == 1
            assert len(server.writes()) == 2
    finally:
        server.close()


def test_the_abl_emh1_by_ascii() -> None:
    server = Rogue(framing="ascii")
    server.registers[1].update({1: 0x0201, 2: 0xA020, 4: 0x00C2, 48: 120, 49: 110, 50: 1000})
    try:
        rows = {row.quantity: row for row in probe(server.address, load("abl-emh1"))}
        assert [rows[f"current_l{line}_a"].value for line in (1, 2, 3)] == [0.0, 11.0, 12.0]
        assert rows["state"].value == "C"
        assert [a.address for a in server.asked][:2] == [4, 4]
    finally:
        server.close()


# ------------------------------------------------------------------------------------------------- addresses

TCP, RTU = Connection(), Connection(framing="rtu", serial=Serial(19200, "E", 1))


@pytest.mark.parametrize(
    ("address", "manners", "where"),
    [
        ("10.0.0.5", TCP, Where("10.0.0.5", 502, "tcp")),
        ("10.0.0.5:503", RTU, Where("10.0.0.5", 503, "rtu")),
        ("tcp://10.0.0.5", RTU, Where("10.0.0.5", 502, "tcp")),
        ("rtu://[fe80::1]:8899", TCP, Where("fe80::1", 8899, "rtu")),
        ("ascii://gateway:23", TCP, Where("gateway", 23, "ascii")),
        ("/dev/ttyUSB0", TCP, Where("/dev/ttyUSB0", 0, "rtu", Serial())),
        ("/dev/ttyUSB0", RTU, Where("/dev/ttyUSB0", 0, "rtu", Serial(19200, "E", 1))),
        ("serial:///dev/ttyUSB0?baud=9600&parity=N", RTU, Where("/dev/ttyUSB0", 0, "rtu", Serial(9600, "N", 1))),
        ("/dev/ttyS1?stopbits=2", Connection(framing="ascii"), Where("/dev/ttyS1", 0, "ascii", Serial(stopbits=2))),
    ],
)
def test_what_an_address_means(address: str, manners: Connection, where: Where) -> None:
    assert locate(address, manners) == where


@pytest.mark.parametrize("address", ["http://10.0.0.1", "10.0.0.1:port", "10.0.0.1/1", "rtu://", ""])
def test_what_is_no_address(address: str) -> None:
    with pytest.raises(ConfigError, match="neither host"):
        locate(address, TCP)


SITE = """
grid: {connection_power_w: 11000}
meters:
  - {id: M1, profile: eastron-sdm630, address: ADDRESS}
  - {id: M2, profile: abb-b2x, address: "rtu://10.0.0.1:502", unit: 2}
"""


def mistakes(tmp_path: Path, text: str) -> list[str]:
    file = tmp_path / "bridge.yaml"
    file.write_text(text)
    try:
        app.prepare(file)
    except ConfigError as error:
        return [mistake.partition("bridge.yaml:")[2] for mistake in error.mistakes]
    return []


def test_readings_of_a_slow_device_are_believed_for_longer(tmp_path: Path) -> None:
    file = tmp_path / "bridge.yaml"
    file.write_text(
        SITE.replace("ADDRESS", "10.0.0.2") + "wallboxes: [{id: E1, profile: keba-p30, address: 10.0.0.3}]\n"
    )
    config = app.prepare(file).config
    assert config.meters[0].patience_s == 5.0
    assert config.wallboxes[0].patience_s > 9.0, "it takes more than 3 s for all its values"
    assert config.wallboxes[0].capability.gap_s == 5.0


@pytest.mark.parametrize(
    ("address", "mistake"),
    [
        ("rtu://10.0.0.1:502", ""),
        ("tcp://10.0.0.1:502", "5: meters[1].address: M1 shares 10.0.0.1:502 and speaks tcp, this device rtu"),
        ("/dev/ttyUSB0?speed=1", "4: meters[0].address: speed=1: a serial line has baud=9600"),
        ("/dev/ttyUSB0?parity=X", "4: meters[0].address: parity=X: a serial line has baud=9600"),
        ("10.0.0.1:70000", "4: meters[0].address: 10.0.0.1:70000: there is no port 70000; allowed: 1 to 65535"),
        ("udp://10.0.0.1", "4: meters[0].address: 'udp://10.0.0.1' does not fit"),
    ],
)
def test_mistakes_in_addresses(tmp_path: Path, address: str, mistake: str) -> None:
    found = mistakes(tmp_path, SITE.replace("ADDRESS", f'"{address}"'))
    assert [m[: len(mistake)] for m in found] == ([mistake] if mistake else [])


@pytest.mark.parametrize(("unit", "same"), [(50, True), (51, False)])
def test_a_wallbox_that_is_there_twice_is_a_mistake(tmp_path: Path, unit: int, same: bool) -> None:
    """Copied, and the unit forgotten; 50 is the profile's own."""
    boxes = "wallboxes:\n" + "".join(
        f"  - {{id: {name}, profile: mennekes-compact, address: 10.0.0.3{more}}}\n"
        for name, more in (("E1", ""), ("E2", f", unit: {unit}"))
    )
    found = mistakes(tmp_path, SITE.replace("ADDRESS", '"rtu://10.0.0.1"') + boxes)
    told = "8: wallboxes[1]: this is the same wallbox as E1: mennekes-compact at 10.0.0.3, unit 50"
    assert found == ([told] if same else [])


@pytest.mark.parametrize("key", ["profiles: nowhere", "profiles: [., nowhere]"])
def test_a_folder_of_profiles_that_is_not_there_is_a_mistake(tmp_path: Path, key: str) -> None:
    (mistake,) = mistakes(tmp_path, SITE.replace("ADDRESS", '"rtu://10.0.0.1"') + key)
    assert "there is no folder" in mistake
    assert "nowhere" in mistake


def test_without_pyserial_the_mistake_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "serial", None)
    (mistake,) = mistakes(tmp_path, SITE.replace("ADDRESS", "/dev/ttyUSB0"))
    assert "pip install 'smgw-bridge[serial]'" in mistake


def test_an_inverter_that_does_not_measure_the_grid_is_no_grid_meter(tmp_path: Path) -> None:
    text = SITE.replace("eastron-sdm630", "sunspec-inverter").replace("ADDRESS", "10.0.0.2, role: grid")
    (mistake,) = mistakes(tmp_path, text)
    assert mistake == "4: meters[0].role: sunspec-inverter does not measure the house connection"
