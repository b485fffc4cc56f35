from __future__ import annotations

from pathlib import Path

import pytest

from bridge import schema
from bridge.core.config import Capability
from bridge.errors import ConfigError
from bridge.modbus import inspect
from bridge.modbus.address import host_port
from bridge.modbus.cells import cells
from bridge.modbus.load import available, load
from bridge.modbus.profile import Profile, capability
from tests.modbus.house import BOX, profile

STATION = """
vendor: Test
model: Station
kind: wallbox
connectors: {step: 1000, max: 3}
points:
  state: {address: 1001, values: {1: A}}
  set_power: {address: 1600, type: u32, scale: 100}
  firmware: {address: 20, station: true}
setpoint: {points: [set_power], unit: W}
"""


def mistakes(text: str) -> str:
    with pytest.raises(ConfigError) as wrong:
        schema.read(text, "box.yaml", Profile)
    return "\n".join(wrong.value.mistakes)


@pytest.mark.parametrize(
    ("was", "now", "said"),
    [
        ("kind: wallbox", "kind: charger", "box.yaml:4: kind: 'charger'"),
        ("address: 100", "adress: 100", "box.yaml:6: points.state.adress: unknown key (did you mean address?)"),
        ("type: u32", "type: u33", "box.yaml:7: points.power_w.type"),
        (
            "set_current: {",
            "set_curent: {",
            "setpoint.points: there is no point set_current (did you mean set_curent?)",
        ),
        ("power_w:", "powr_w:", "powr_w: neither a known quantity nor used (did you mean power_w?)"),
        ("values: {1: A, 2: B, 3: C}", "values: {1: G}", "its values must be the letters A to F"),
        ("state:", "status: ", "a wallbox needs a point state"),
        ("scale: 0.1", 'scale: "power_w > 0 ? 1 : 0.1"', "step_a is needed"),
        ("scale: 0.1", "scale: 0.1, mask: 255", "set_current: a point with a mask"),
        ("address: 100", "address: 100, sunspec: {model: [1], point: SN}", "either an address or sunspec"),
        ("type: u32", "type: str", "type str needs count"),
        ("setpoint: {", "setpoint: {min_a: 20, max_a: 16, ", "setpoint: min_a is above max_a"),
        ("setpoint:", "init: [{point: set_mode, value: 1}]\nsetpoint:", "init: there is no point set_mode"),
        ("power_w:", "set_failsafe_a:", "set_failsafe_a: neither a known quantity nor used"),
    ],
)
def test_each_mistake_is_told(was: str, now: str, said: str) -> None:
    assert was in BOX
    assert said in mistakes(BOX.replace(was, now))


def test_all_mistakes_are_told_at_once() -> None:
    told = mistakes(BOX.replace("address: 100", "address: 70000").replace("type: u32", "type: u33"))
    assert "box.yaml:6" in told
    assert "box.yaml:7" in told


def test_what_a_model_can_do() -> None:
    assert capability(profile(BOX)) == Capability(6.0, 32.0, 0.1)
    assert capability(profile(STATION)) == Capability(6.0, 32.0, pytest.approx(100 / 690))
    assert capability(profile(BOX.replace("scale: 0.1", "type: f32"))) == Capability(6.0, 32.0, 0.1)


def test_profiles_are_found_by_id(tmp_path: Path) -> None:
    (tmp_path / "my_box.yaml").write_text(BOX)
    (tmp_path / "keba-p30.yaml").write_text(BOX)
    assert load("my-box", [tmp_path]).id == "my-box"
    assert load("My_Box", [tmp_path]).id == "my-box"
    assert load("keba_p30").vendor == "KEBA"
    assert load("keba-p30", [tmp_path]).vendor == "Test"
    with pytest.raises(ConfigError, match=r"there is no profile keba-p31 \(did you mean keba-p30"):
        load("keba-p31")


def test_a_connector_of_a_station(tmp_path: Path) -> None:
    (tmp_path / "station.yaml").write_text(STATION)
    second = load("station#2", [tmp_path])
    assert {name: point.address for name, point in second.points.items()} == {
        "state": 2001,
        "set_power": 2600,
        "firmware": 20,
    }
    for wrong in ("station#4", "station#0", "station#x", "keba-p30#2"):
        with pytest.raises(ConfigError, match="no such connector"):
            load(wrong, [tmp_path])


def test_a_value_of_several_registers_is_never_written_in_pieces() -> None:
    box = profile(BOX.replace("scale: 0.1", "type: u32, write: 6"))
    assert cells(box, 1)["set_current"].write == 16


@pytest.mark.parametrize("name", sorted(available()))
def test_every_shipped_profile_can_be_reported(name: str) -> None:
    assert list(inspect.report(available()[name]))


@pytest.mark.parametrize(
    ("address", "parts"),
    [("box", ("box", 502)), ("box:1502", ("box", 1502)), ("[::1]", ("::1", 502)), ("[::1]:99", ("::1", 99))],
)
def test_addresses(address: str, parts: tuple[str, int]) -> None:
    assert host_port(address, 502) == parts
