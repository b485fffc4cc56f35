from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from bridge.core.config import Capability
from bridge.errors import ConfigError
from bridge.modbus import inspect
from bridge.modbus.address import host_port
from bridge.modbus.cells import cells
from bridge.modbus.load import available, load, parse, readable
from bridge.modbus.profile import capability
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


def mistakes(text: str) -> Sequence[str]:
    with pytest.raises(ConfigError) as wrong:
        parse(text, "box.yaml")
    return wrong.value.mistakes


WITHIN = [
    ("kind: wallbox", "kind: charger", "4: kind: 'charger' is not one of the words; allowed: wallbox, "),
    ("address: 100", "adress: 100", "6: points.state.adress: unknown key (did you mean address?)"),
    ("type: u32", "type: u33", "7: points.power_w.type: 'u33' is not one of the words; allowed: u16, "),
    ("points:", "id: my-box\npoints:", "5: id: unknown key"),
    ("address: 100", "address: 100, sunspec: {model: [1], point: SN}", "6: points.state: needs either an address or"),
    ("power_w:", "Power-W:", "7: points.Power-W: a point's name is a word in small letters, digits and _"),
    ("setpoint:", "roles: {gird: {power_w: 5}}\nsetpoint:", "9: roles.gird: 'gird' is not one of the words; allowed: "),
    ("setpoint:", "roles: {grid: {powr: 5}}\nsetpoint:", "9: roles.grid.powr: powr is no known quantity"),
    ("C}", "G}", "6: points.state.values.3: G: its values must be the letters A to F"),
    ("C}", "C}, default: X", "6: points.state.default: X: must be one of the letters A to F"),
    (", values: {1: A, 2: B, 3: C}", "", "6: points.state: needs values that are the letters A to F"),
    ("state:", "status: ", "4: kind: a wallbox needs a point state whose values are A to F, or rules"),
    ("type: u32", "type: str", "7: points.power_w: type str needs count, the number of registers"),
    ("type: u32", "type: u32, count: 2", "7: points.power_w.count: count is for texts"),
    ("type: u32", "type: str, count: 2, scale: 2", "7: points.power_w.scale: a text (str) has no scale"),
    ("scale: 0.1", "scale: 0", "8: points.set_current.scale: 0 makes every value 0; allowed: any other number"),
    ("type: u32", "type: f32, mask: 1", "7: points.power_w.mask: a mask is for whole numbers, not for f32"),
    ("101, type", "101, read: 1, type", "7: points.power_w.read: function 1 does not read u32; allowed: 3, 4 or never"),
    ("u32", "bool, read: 3", "7: points.power_w.read: function 3 does not read bool; allowed: 1, 2 (coils and"),
    ("u32", "u32, default: 5", "7: points.power_w: default says what stands for raw values missing in values"),
    ("scale: 0.1", "type: u16, write: 5", "8: points.set_current.write: function 5 does not write u16; allowed: 6, 16"),
    ("101, type: u32", "70000, type: u33", "7: points.power_w.address: 70000 does not fit; allowed: 0 to 65535"),
    ("kind: wallbox", "kind: meter", "9: setpoint: setpoint goes with kind: wallbox"),
    (
        "setpoint:",
        "identify: {power_w: '(\\d'}\nsetpoint:",
        "9: identify.power_w: '(\\\\d' does not fit; allowed: a",
    ),
]
"""In :data:`BOX`: what is changed into what, and what is said then, from the line on. One value or mapping shows it."""

BETWEEN = [
    ("type: u32", "type: u32, scale: 2 *", "7: points.power_w.scale: '2 *' is no formula: expected a value"),
    ("setpoint: {", "setpoint: {min_a: 20, max_a: 16, ", "9: setpoint: min_a is above max_a"),
    (
        "[set_current]",
        "[set_curent]",
        "9: setpoint.points[0]: there is no point set_curent (did you mean set_",
    ),
    ("]}", "], read_back: held_a}", "9: setpoint.read_back: there is no point held_a"),
    ("]}", "], max_age_s: power / 2}", "9: setpoint.max_age_s: there is no point power (did you mean power_w?)"),
    ("setpoint:", "identify: {serial: x}\nsetpoint:", "9: identify.serial: there is no point serial"),
    ("setpoint:", "init:\n- {point: mode, value: 1}\nsetpoint:", "10: init[0].point: there is no point mode"),
    ("setpoint:", "keepalive: {every_s: 1, read: life}\nsetpoint:", "9: keepalive.read: there is no point life"),
    ("power_w:", "powr_w:", "7: points.powr_w: neither a known quantity nor used (did you mean power_w?)"),
    ("power_w:", "set_failsafe_a:", "7: points.set_failsafe_a: neither a known quantity nor used"),
    ("setpoint:", "derived: {power_w: 5}\nsetpoint:", "9: derived.power_w: power_w is said twice: line 7 has it"),
    ("setpoint:", "state: [{then: B}]\nsetpoint:", "9: state: state is said twice: line 6 has it already"),
    ("address: 100", "address: 100, mask: 0x10000", "6: points.state.mask: 0x10000 is wider than u16"),
    ("{1: A", "{A1: A", "6: points.state.values.A1: a raw value of u16 is a whole number"),
    (
        "101, type: u32",
        "65535, type: u32",
        "7: points.power_w.address: reaches to register 65536; the last",
    ),
    ("u32", "bool", "7: points.power_w: function 3 does not read bool; allowed: 1, 2 (coils and discrete inputs)"),
    (
        "{address: 101, type: u32}",
        "{sunspec: {model: [7], point: W}}",
        "7: points.power_w.sunspec.model: no such",
    ),
    (
        "{address: 101, type: u32}",
        "{sunspec: {model: [203], point: Wph}}",
        "7: points.power_w.sunspec.point: model 203 has no Wph (did you mean WphC?)",
    ),
    (
        "setpoint:",
        "derived: {current_a: voltage_v / 2, voltage_v: 230}\nsetpoint:",
        "9: derived.current_a: voltage_v is worked out later; it must stand above",
    ),
    ("setpoint:", "derived: {current_a: current_a + 1}\nsetpoint:", "9: derived.current_a: current_a needs itself"),
    (
        "setpoint:",
        "failsafe: {current_a: 6, timeout_s: 10}\nkeepalive: {every_s: 30, read: state}\nsetpoint:",
        "10: keepalive.every_s: 30 s is too seldom for a watchdog of 10 s (failsafe.timeout_s); allowed: at most half",
    ),
    (
        "]}",
        "], max_age_s: 6}\nfailsafe: {current_a: 6, timeout_s: 10}",
        "9: setpoint.max_age_s: 6 s is too seldom for a watchdog of 10 s",
    ),
    ("scale: 0.1", 'scale: "power_w > 0 ? 1 : 0.1"', "9: setpoint: step_a is needed"),
    ("scale: 0.1", "scale: 0.1, mask: 255", "9: setpoint.points[0]: set_current cannot be written: it has a mask"),
    ("scale: 0.1", "type: str, count: 2", "9: setpoint.points[0]: set_current cannot be written: it is a text"),
    (
        "scale: 0.1}",
        "read: never}\nkeepalive: {every_s: 5, read: set_current}",
        "9: keepalive.read: set_current",
    ),
]
"""The same with what lies between values."""


@pytest.mark.parametrize(("was", "now", "said"), WITHIN + BETWEEN, ids=[slip[1][:30] for slip in WITHIN + BETWEEN])
def test_each_mistake_is_told_at_its_line(was: str, now: str, said: str) -> None:
    assert was in BOX
    told = mistakes(BOX.replace(was, now, 1))
    assert any(one.startswith(f"box.yaml:{said}") for one in told), told


def test_all_mistakes_are_told_at_once() -> None:
    """Those of single values do not hide those between values, nor the other way round."""
    text = BOX.replace("100", "70000").replace("u32", "u33").replace("[set_current]", "[set_curent]")
    told = mistakes(text + "failsafe: {current_a: 6, timeout_s: 10, writes: [{point: nothing, value: 6}]}\n")
    assert [line.split(":")[1] for line in told] == ["6", "7", "8", "9", "10"]


def test_a_file_without_points_is_no_profile() -> None:
    (told,) = mistakes("vendor: a\nmodel: b\nkind: meter\npoints: {}\n")
    assert told == "box.yaml:4: points: a mapping does not fit; allowed: at least one point"


def test_addresses_of_the_last_connector_are_registers_too() -> None:
    (told,) = mistakes(STATION.replace("max: 3", "max: 64").replace("1600", "4600"))
    assert "points.set_power.address: reaches to register 67601 of the last connector" in told


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


def test_the_read_plan_is_told(tmp_path: Path) -> None:
    path = tmp_path / "box.yaml"
    path.write_text(STATION.replace("1600", "1004, poll: slow") + "connection: {allow_gaps: true, gap_ms: 250}\n")
    report = list(inspect.report(path))
    assert "every poll: function 3, unit 1, 20 to 20: firmware" in report
    assert "requests: 2 every poll (0.5 s at least), 1 more every tenth, 0 after connecting" in report
    path.write_text(STATION.replace("1600", "1004") + "connection: {allow_gaps: true, repeat: 2}\n")
    report = list(inspect.report(path))
    assert "every poll: function 3, unit 1, 1001 to 1005 (2 of them only to save a request): state, set_power" in report
    assert "requests: 4 every poll, 0 more every tenth, 0 after connecting" in report


def test_a_file_with_mistakes_does_not_hide_the_others(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "broken.yml").write_text(BOX.replace("u32", "u33"))
    (tmp_path / "mine.yml").write_text(BOX)
    found = [profile.id for profile in readable([tmp_path])]
    assert "mine" in found
    assert "keba-p30" in found
    assert "broken" not in found
    assert "broken.yml is left out: broken.yml:7: points.power_w.type: 'u33'" in caplog.text


@pytest.mark.parametrize("name", sorted(available()))
def test_every_shipped_profile_can_be_reported(name: str) -> None:
    assert list(inspect.report(available()[name]))


@pytest.mark.parametrize(
    ("address", "parts"),
    [("box", ("box", 502)), ("box:1502", ("box", 1502)), ("[::1]", ("::1", 502)), ("[::1]:99", ("::1", 99))],
)
def test_addresses(address: str, parts: tuple[str, int]) -> None:
    assert host_port(address, 502) == parts
