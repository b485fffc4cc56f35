"""``bridge.yaml`` for devices that are not read over Modbus: what it may say, and every mistake with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from bridge import app, config
from bridge.errors import ConfigError
from bridge.modbus.profile import capability

SITE = """\
grid: {connection_power_w: 20000}
meters:
  - {id: M1, role: grid, profile: mqtt-input, topics: {power_w: {topic: a/b, path: E.P, scale: 1000}}}
  - {id: M2, profile: http-input}
  - {id: M3, profile: expression, values: {power_w: M1.power_w - E1.power_w, import_wh: import_wh + power_w * dt}}
wallboxes:
  - {id: E1, profile: http_input, max_current_a: 16}
  - id: E2
    profile: mqtt-input
    topics: {state: {topic: box/car, map: {1: A, off: B, charging: C}}}
    setpoint: {topic: box/set, template: "{current_ma}", retain: true, step_a: 1, read_back: {topic: box/amp}}
  - {id: E3, profile: heidelberg-ec, address: 10.0.0.1}
"""


def prepared(folder: Path, text: str) -> app.Setup:
    file = folder / "bridge.yaml"
    file.write_text(text)
    return app.prepare(file)


def test_a_site(tmp_path: Path) -> None:
    setup = prepared(tmp_path, SITE)
    assert list(setup.profiles) == ["E3"]
    assert [device.id for device in setup.config.inputs] == ["M1", "M2", "M3", "E1", "E2"]
    assert [box.capability.step_a for box in setup.config.wallboxes[:2]] == [0.1, 1.0]
    known = capability(setup.profiles["E3"])
    assert known is not None
    assert setup.config.wallboxes[2].capability.max_a == known.max_a == 16
    assert setup.config.meters[0].topics["power_w"].scale == 1000
    assert setup.config.wallboxes[1].topics["state"].map == {"1": "A", "off": "B", "charging": "C"}
    assert config.hints(setup.config) == []


def test_a_box_that_counts_watts_has_the_step_of_the_lines_it_is_connected_to(tmp_path: Path) -> None:
    boxes = "[{id: E1, profile: goodwe-hca, address: a, phases: 1}, {id: E2, profile: goodwe-hca, address: b}]"
    setup = prepared(tmp_path, f"grid: {{connection_power_w: 11000}}\nwallboxes: {boxes}\n")
    one, three = (box.capability.step_a for box in setup.config.wallboxes)
    assert (one, three) == (pytest.approx(100 / 230, abs=1e-5), pytest.approx(100 / 690, abs=1e-5))


MISTAKES = [
    ("profile: http_input", "profile: keba-p30", "7: wallboxes[0].profile: keba-p30 needs address"),
    ("{id: M2,", "{id: M2, address: a,", "4: meters[1].address: address has no meaning with the profile http-input"),
    ("{id: M2,", "{id: M2, unit: 1,", "4: meters[1].unit: unit has no meaning"),
    ("{id: M2,", "{id: M2, topics: {power_w: {topic: a}},", "4: meters[1].topics: topics has no meaning"),
    ("address: 10.0.0.1", "address: x, setpoint: {topic: a}", "12: wallboxes[2].setpoint: setpoint has no meaning"),
    (", topics: {power_w: {topic: a/b, path: E.P, scale: 1000}}", "", "3: meters[0].profile: mqtt-input needs topics"),
    ("power_w: {topic: a/b", "powr_w: {topic: a/b", "no such quantity (did you mean power_w?)"),
    ("power_w: {topic: a/b", "import_wh: {topic: a/b", "3: meters[0].profile: a meter of the role grid needs power_w"),
    ("topic: a/b", "topic: a/+", "3: meters[0].topics.power_w.topic: 'a/+' does not fit"),
    ("topic: a/b", "topic: smgw-bridge/x", "3: meters[0].topics.power_w: smgw-bridge/x is one of the bridge's own"),
    ("path: E.P", "pth: E.P", "3: meters[0].topics.power_w.pth: unknown key (did you mean path?)"),
    ("id: M3, profile", "id: M3, role: grid, profile", ""),
    ("M1.power_w - E1", "M3.power_w - E1", "5: meters[2]: refers to itself: m3 -> m3"),
    ("M1.power_w - E1", "M7.power_w - E1", "5: meters[2].values.power_w: 'M7.power_w - E1.power_w' names m7.power_w"),
    ("M1.power_w - E1", "1 +", "5: meters[2].values.power_w: '1 +"),
    ("values: {power_w", "values: {watts", "5: meters[2].values.watts: no such quantity"),
    (
        "wallboxes:",
        "  - {id: M4, profile: expression, values: {power_w: M3.power_w}}\n"
        "variables: {X: {initial: M4.soc}}\nwallboxes:",
        "",
    ),
    ("profile: http_input", "profile: expression", "7: wallboxes[0].profile: expression is a meter"),
    ("state: {topic: box/car", "power_w: {topic: box/car", "10: wallboxes[1].topics: a wallbox needs the topic of its"),
    ("topic: box/amp", "topic: box/set", "11: wallboxes[1].setpoint: read_back must be a topic of the box"),
    ('"{current_ma}"', "on", "11: wallboxes[1].setpoint.template: 'on' does not fit; allowed: a text with {current_a}"),
]


@pytest.mark.parametrize(("before", "after", "mistake"), MISTAKES)
def test_mistakes(tmp_path: Path, before: str, after: str, mistake: str) -> None:
    assert before in SITE
    text = SITE.replace(before, after, 1)
    if not mistake:
        prepared(tmp_path, text)
        return
    with pytest.raises(ConfigError) as caught:
        prepared(tmp_path, text)
    assert any(mistake in said for said in caught.value.mistakes), caught.value.mistakes


def test_a_circle_over_other_meters_and_variables(tmp_path: Path) -> None:
    text = SITE.replace("M1.power_w - E1.power_w", "X").replace(
        "wallboxes:",
        "  - {id: M4, profile: expression, values: {power_w: M3.power_w}}\n"
        "variables: {X: {initial: M4.power_w}}\nwallboxes:",
    )
    with pytest.raises(ConfigError) as caught:
        prepared(tmp_path, text)
    assert [said.partition(":")[2] for said in caught.value.mistakes] == [
        "5: meters[2]: refers to itself: m3 -> x -> m4 -> m3",
        "6: meters[3]: refers to itself: m4 -> m3 -> x -> m4",
    ]


def test_hints_know_the_names_of_an_expression(tmp_path: Path) -> None:
    found = config.hints(prepared(tmp_path, SITE.replace("power_w * dt", "WAT * dt")).config)
    assert [hint.partition(" is not")[0] for hint in found] == ["meters[2].values.import_wh: wat"]
