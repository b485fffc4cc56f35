from __future__ import annotations

from bridge.modbus.cells import cells
from bridge.modbus.codec import decode
from bridge.modbus.readings import published, readings
from tests.modbus.house import profile

INVERTER = """
vendor: Test
model: Hybrid
kind: inverter
points:
  firmware_number: {address: 1}
  energy_wh: {address: 2, scale: "firmware_number < 200 ? 100 : 1000"}
  power_in: {address: 3}
  power_out: {address: 4, scale: -1}
  grid_power_w: {address: 5, type: i16, na: usual}
  serial: {address: 6, type: str, count: 1}
derived:
  power_w: power_in + power_out
  battery_power_w: power_w / (grid_power_w + 0)
roles:
  grid: {power_w: -grid_power_w}
"""

CAR = """
vendor: Test
model: Box
kind: wallbox
points:
  charging: {address: 0, values: {9: 4}}
  cable: {address: 1}
state:
  - {when: charging == 4, then: E}
  - {when: (cable & 4) == 0, then: A}
  - {when: charging == 3, then: C}
  - {then: B}
"""


def meant(text: str, words: dict[str, list[int]], role: str = "") -> dict[str, object]:
    shape = profile(text)
    found = cells(shape, 1)
    raw = {name: value for name, w in words.items() if (value := decode(found[name], w)) is not None}
    return dict(published(shape, readings(shape, found, raw), role))


def test_scales_and_derived_values_may_depend_on_other_points() -> None:
    words = {"firmware_number": [150], "energy_wh": [7], "power_in": [500], "power_out": [200], "serial": [0x4142]}
    assert meant(INVERTER, words) == {"energy_wh": 700.0, "power_w": 300.0, "serial": "AB"}
    assert meant(INVERTER, {**words, "firmware_number": [250]})["energy_wh"] == 7000.0


def test_what_was_not_delivered_is_missing_and_not_zero() -> None:
    assert meant(INVERTER, {"energy_wh": [7], "power_in": [500], "grid_power_w": [0x8000]}) == {}


def test_a_role_renames() -> None:
    words = {"power_in": [500], "power_out": [200], "grid_power_w": [100]}
    assert meant(INVERTER, words)["power_w"] == 300.0
    assert meant(INVERTER, words, "grid")["power_w"] == -100.0
    assert meant(INVERTER, words, "consumption")["power_w"] == 300.0  # of which the profile says nothing


def test_in_a_role_only_what_belongs_to_it_is_told() -> None:
    """The inverter's own numbers must not pass for those of the house connection."""
    words = {"power_in": [500], "power_out": [200], "grid_power_w": [100], "energy_wh": [7], "firmware_number": [150]}
    assert meant(INVERTER, {**words, "serial": [0x4142]}, "grid") == {"power_w": -100.0, "serial": "AB"}
    del words["grid_power_w"]
    assert meant(INVERTER, words, "grid") == {}


def test_the_state_is_that_of_the_first_rule_that_holds() -> None:
    def state(charging: int, cable: int) -> object:
        return meant(CAR, {"charging": [charging], "cable": [cable]}).get("state")

    assert [state(3, 0), state(3, 7)] == [None, None]  # values without default: neither is listed
    plain = CAR.replace(", values: {9: 4}", "")
    words = {(4, 7): "E", (3, 3): "A", (3, 7): "C", (2, 7): "B"}
    for (charging, cable), letter in words.items():
        assert meant(plain, {"charging": [charging], "cable": [cable]})["state"] == letter
    assert "state" not in meant(plain, {"charging": [3]})
