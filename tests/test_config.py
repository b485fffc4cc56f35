"""``bridge.yaml``: what a whole configuration may say, and every mistake in it at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from bridge import config
from bridge.core.config import Config
from bridge.core.formulas import parse
from bridge.errors import ConfigError

SITE = """\
grid: {connection_power_w: 55000 * AVAIL / 100}
variables:
  AVAIL: {initial: 100, min: 0, max: 100}
meters:
  - {id: M1, role: grid, profile: eastron-sdm630, address: "192.168.1.10:502", unit: 1}
wallboxes:
  - {id: E1, profile: keba-p30, address: 192.168.1.20}
"""


def load(folder: Path, text: str) -> Config:
    file = folder / "bridge.yaml"
    file.write_text(text)
    return config.load(file)


def mistakes(folder: Path, text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(folder, text)
    prefix = f"{folder}/bridge.yaml:"
    assert all(mistake.startswith(prefix) for mistake in caught.value.mistakes)
    return [mistake.removeprefix(prefix) for mistake in caught.value.mistakes]


def test_a_site(tmp_path: Path) -> None:
    found = load(tmp_path, SITE)
    assert found.grid.connection_power_w == parse("55000 * AVAIL / 100")
    assert found.grid.failsafe_power_w == 4200
    assert found.meters[0].role == "grid"
    assert found.wallboxes[0].lines == (1, 2, 3)
    assert found.http.listen == "0.0.0.0:8080"
    assert set(found.by_key) == {"m1", "e1"}
    assert found.declared["avail"][0] == "AVAIL"


@pytest.mark.parametrize(
    ("keys", "lines"),
    [
        ("", (1, 2, 3)),
        ("phases: 1", (1,)),
        ("phases: 1, rotation: [2, 3, 1]", (2,)),
        ("phases: 3, rotation: [3, 1, 2]", (3, 1, 2)),
        ("phases: [2]", (2,)),
        ("phases: [3, 1], rotation: [2, 3, 1]", (3, 1)),
    ],
)
def test_the_lines_of_a_wallbox(tmp_path: Path, keys: str, lines: tuple[int, ...]) -> None:
    found = load(tmp_path, SITE.replace("profile: keba-p30", "profile: keba-p30" + (", " + keys if keys else "")))
    assert found.wallboxes[0].lines == lines


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (("grid:", "gird:"), ["1: gird: unknown key (did you mean grid?)", "1: grid: is missing"]),
        (
            ("AVAIL / 100", "AVAIL / "),
            ["1: grid.connection_power_w: '55000 * AVAIL /' is no formula: expected a value"],
        ),
        (
            ("AVAIL / 100", "M2.power_w"),
            ["1: grid.connection_power_w: '55000 * M2.power_w' names m2.power_w, but there"],
        ),
        (
            ("initial: 100", "initial: E7.state"),
            ["3: variables.AVAIL.initial: 'E7.state' names e7.state, but there is"],
        ),
        (("initial: 100", "initial: 101"), ["3: variables.AVAIL: initial 101 is outside min and max"]),
        (("min: 0", "min: 200"), ["3: variables.AVAIL: min 200 is above max 100"]),
        (("min: 0", "writers: [smgw, guest]"), ["3: variables.AVAIL.writers[1]: 'guest' is not one of the words"]),
        (("min: 0", "ttl_s: 0"), ["3: variables.AVAIL.ttl_s: 0 does not fit; allowed: 1 to 31622400"]),
        (("min: 0", "fallback: 101"), ["3: variables.AVAIL: fallback 101 is outside min and max"]),
        (("min: 0", "fallback: E7.state"), ["3: variables.AVAIL.fallback: 'E7.state' names e7.state, but there is no"]),
        (
            ("meters:", "contacts: [{id: avail, source: M1.input1}]\nmeters:"),
            ["4: contacts[0].id: avail is taken: line 3 has it already"],
        ),
        (
            ("meters:", "contacts: [{id: W4, source: AVAIL}]\nmeters:"),
            ["4: contacts[0].source: a contact is read from inputs of devices such as IO1.input1, not from avail"],
        ),
        (
            ("meters:", "contacts: [{id: W4, source: 1}]\nmeters:"),
            ["4: contacts[0].source: a contact is read from inputs of devices such as IO1.input1"],
        ),
        (
            ("meters:", "contacts: [{id: W4, source: IO9.input1}]\nmeters:"),
            ["4: contacts[0].source: 'IO9.input1' names io9.input1, but there is no io9"],
        ),
        (
            ("meters:", "contacts: [{id: W4, source: W4.input1}]\nmeters:"),
            ["4: contacts[0].source: 'W4.input1' names w4.input1, but there is no w4"],
        ),
        (
            ("meters:", "contacts: [{id: min, source: M1.input1}]\nmeters:"),
            ["4: contacts[0].id: 'min' does not fit; allowed: letters, digits and _"],
        ),
        (("  AVAIL:", "  avail: {}\n  AVAIL:"), ["4: variables.AVAIL: AVAIL is taken: line 3 has it already"]),
        (("  AVAIL:", "  min: {}\n  AVAIL:"), ["3: variables.min: 'min' does not fit; allowed: letters, digits and _"]),
        (("  AVAIL:", "  AVAIL: {}\n  AVAIL:"), ['4: no valid YAML: found duplicate key "AVAIL"']),
        (("id: M1", "id: 1"), ["5: meters[0].id: 1 does not fit; allowed: a text"]),
        (("id: M1", "id: M-1"), ["5: meters[0].id: 'M-1' does not fit; allowed: a letter, then letters"]),
        (
            ("role: grid", "role: gird"),
            ["5: meters[0].role: 'gird' is not one of the words; allowed: grid, consumption"],
        ),
        (("unit: 1", "unit: '1'"), ["5: meters[0].unit: '1' does not fit; allowed: a whole number"]),
        (("unit: 1", "unit: 256"), ["5: meters[0].unit: 256 does not fit; allowed: 0 to 255"]),
        (
            ('"192.168.1.10:502"', "http://x"),
            ["5: meters[0].address: 'http://x' does not fit; allowed: host, host:port, rtu://host:port"],
        ),
        (("id: E1", "id: m1"), ["7: wallboxes[0].id: m1 is taken: line 5 has it already"]),
        (
            ("{id: E1", "{id: E1, rotation: [1, 2, 2]"),
            ["7: wallboxes[0].rotation: a list does not fit; allowed: each of"],
        ),
        (
            ("{id: E1", "{id: E1, phases: [1, 1]"),
            ["7: wallboxes[0].phases: a list does not fit; allowed: a whole number or"],
        ),
        (("{id: E1", "{id: E1, min_current_a: 5"), ["7: wallboxes[0].min_current_a: 5 does not fit; allowed: 6 to 16"]),
        (("{id: E1", "{id: E1, capability: {}"), ["7: wallboxes[0].capability: unknown key"]),
        (("{id: E1", "{id: E1, rules: [{}]"), ["7: wallboxes[0].rules[0]: a rule needs exactly one of current_a"]),
        (
            ("{id: E1", '{id: E1, rules: [{from: "8:00", days: [so], surplus: true}]'),
            [
                "7: wallboxes[0].rules[0].from: '8:00' does not fit; allowed: HH:MM",
                "7: wallboxes[0].rules[0].days[0]: 'so' is not one of the words; allowed: mon",
            ],
        ),
        (
            ("{id: E1", "{id: E1, rules: [{when: E7.state == 3, current_a: 6}]"),
            ["7: wallboxes[0].rules[0].when: 'E7.state == 3' names e7.state, but there is no e7"],
        ),
        (("id: E1, ", ""), ["7: wallboxes[0].id: is missing"]),
        (
            ("grid:", "smgw: {listen: '192.0.2.1:1'}\ngrid:"),
            ["1: smgw: the door needs certificate (ours) and gateway_"],
        ),
        (("grid:", "http: {listen: 8080}\ngrid:"), ["1: http.listen: 8080 does not fit; allowed: a text"]),
        (("grid:", "http: {certificate: a.b}\ngrid:"), ["1: http.certificate: 'a.b' does not fit; allowed: the name"]),
        (("grid:", "mqtt: {url: localhost}\ngrid:"), ["1: mqtt.url: 'localhost' does not fit; allowed: mqtt://[user"]),
        (
            ("grid:", "mqtt: {discovery: true}\ngrid:"),
            ["1: mqtt.discovery: true does not fit; allowed: a text or false"],
        ),
        (("grid:", "mqtt: {topic: a/#}\ngrid:"), ["1: mqtt.topic: 'a/#' does not fit; allowed: a topic without +, #"]),
        (("{connection", "{return_ramp_s: -1, connection"), ["1: grid.return_ramp_s: -1 does not fit; allowed: 0"]),
        (
            ("{connection", "{failsafe_power_w: -1, connection"),
            ["1: grid.failsafe_power_w: -1 does not fit; allowed: 0"],
        ),
    ],
)
def test_mistakes(tmp_path: Path, change: tuple[str, str], expected: list[str]) -> None:
    assert change[0] in SITE
    found = mistakes(tmp_path, SITE.replace(*change, 1))
    assert [mistake[: len(start)] for mistake, start in zip(found, expected, strict=True)] == expected


def test_all_mistakes_at_once(tmp_path: Path) -> None:
    """Those of one value, of one mapping and of the whole file: nobody should have to come back ten times."""
    found = mistakes(
        tmp_path,
        """\
site: 7
grid:
  connection_power_w: 55000 * AVAIL / 100 + M3.power_w
  voltage: 23
variables:
  AVAIL: {initial: 100, max: 50}
  avail: {initial: 1 +}
meters:
  - {id: M1, role: main, profile: p, address: a}
wallboxes:
  - {id: E1, profile: p, address: a, unit: "255"}
  - {id: e1, profile: p, address: a, rotation: [1, 1, 1], priority: high, color: red}
ocpp: {}
""",
    )
    assert [mistake.split(": ")[0] + " " + mistake.split(": ")[1] for mistake in found] == [
        "1 site",
        "3 grid.connection_power_w",
        "4 grid.voltage",
        "6 variables.AVAIL",
        "7 variables.avail.initial",
        "7 variables.avail",
        "9 meters[0].role",
        "11 wallboxes[0].unit",
        "12 wallboxes[1].rotation",
        "12 wallboxes[1].priority",
        "12 wallboxes[1].color",
        "12 wallboxes[1].id",
        "13 ocpp",
    ]


def test_no_feature_is_silently_ignored() -> None:
    """A section that is planned must not be in the dataclasses already, else nobody could use it."""
    planned = {key for key in config.PLANNED if "." not in key}
    assert not planned & set(Config.__dataclass_fields__)
    for key in config.PLANNED:
        section, _, rest = key.partition(".")
        assert not rest or section in Config.__dataclass_fields__, key


@pytest.mark.parametrize(("name", "text"), [("missing.yaml", None), ("folder", ""), ("latin.yaml", "site: M\xfcller")])
def test_a_file_that_cannot_be_read(tmp_path: Path, name: str, text: str | None) -> None:
    path = tmp_path / name
    if name == "folder":
        path.mkdir()
    elif text is not None:
        path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match="cannot be read"):
        config.load(path)


def test_surplus_needs_somebody_who_measures_it(tmp_path: Path) -> None:
    text = SITE.replace("{id: E1", "{id: E1, rules: [{current_a: 6}, {surplus: true}]")
    assert load(tmp_path, text).wallboxes[0].rules[1].surplus
    blind = text.replace("role: grid", "role: display")
    (mistake,) = mistakes(tmp_path, blind)
    assert mistake == "7: wallboxes[0].rules[1]: surplus needs a meter of the role grid, or grid.surplus_w"
    load(tmp_path, blind.replace("grid: {", "grid: {surplus_w: -M1.power_w, "))


def test_hints_know_rules_and_predefined_names(tmp_path: Path) -> None:
    text = SITE.replace("{id: E1", "{id: E1, rules: [{when: _surplus > NEED, current_a: GM.surplus.current / 1000}]")
    (hint,) = config.hints(load(tmp_path, text))
    assert hint.startswith("wallboxes[0].rules[0].when: need is not declared")


def test_hints_name_variables_nobody_declared(tmp_path: Path) -> None:
    text = SITE.replace("AVAIL / 100", "AVIAL / 100").replace("{id: E1", "{id: E1, max_current_a: LIMIT")
    found = config.hints(load(tmp_path, text))
    assert len(found) == 2
    assert found[0].startswith("grid.connection_power_w: avial is not declared under variables (did you mean AVAIL?)")
    assert found[1].startswith("wallboxes[0].max_current_a: limit is not declared")
    assert config.hints(load(tmp_path, SITE)) == []


def test_where_the_file_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SMGW_BRIDGE_CONFIG", raising=False)
    assert config.find(None) == Path("/etc/smgw-bridge/bridge.yaml")
    monkeypatch.setenv("SMGW_BRIDGE_CONFIG", "/env.yaml")
    assert config.find(None) == Path("/env.yaml")
    assert config.find("given.yaml") == Path("given.yaml")


def test_where_the_state_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("STATE_DIRECTORY", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/home/somebody")
    assert config.state_dir(None, None) == Path("/home/somebody/.local/state/smgw-bridge")
    monkeypatch.setenv("XDG_STATE_HOME", "/xdg")
    assert config.state_dir(None, None) == Path("/xdg/smgw-bridge")
    monkeypatch.setenv("STATE_DIRECTORY", "/var/lib/smgw-bridge")
    assert config.state_dir(None, None) == Path("/var/lib/smgw-bridge")
    named = load(tmp_path, SITE + "state_dir: /named\n")
    assert config.state_dir(None, named) == Path("/named")
    assert config.state_dir("/given", named) == Path("/given")


@pytest.mark.parametrize(
    ("more", "keys", "said"),
    [
        ("", "meter: M2", "7: wallboxes[0].meter: there is no meter M2; there are M1"),
        ("", "meter: M1", "7: wallboxes[0].meter: M1 has the role grid; the meter of a wallbox has the role wallbox"),
        (
            "role: wallbox, poll_s: 5",
            "meter: M2",
            "8: wallboxes[0].meter: M2 is read every 5 s; allowed: 2.5 s or less",
        ),
    ],
)
def test_the_meter_of_a_wallbox(tmp_path: Path, more: str, keys: str, said: str) -> None:
    site = SITE.replace("192.168.1.20}", "192.168.1.20, " + keys + "}")
    if more:
        meter = f'  - {{id: M2, profile: eastron-sdm630, address: "192.168.1.10:502", unit: 2, {more}}}\n'
        site = site.replace("wallboxes:\n", meter + "wallboxes:\n")
    assert mistakes(tmp_path, site) == [said]


def test_a_meter_belongs_to_one_wallbox(tmp_path: Path) -> None:
    meter = '  - {id: M2, role: wallbox, profile: eastron-sdm630, address: "192.168.1.10:502", unit: 2}\n'
    site = SITE.replace("wallboxes:\n", meter + "wallboxes:\n").replace("168.1.20}", "168.1.20, meter: M2}")
    assert load(tmp_path, site).wallboxes[0].meter == "M2"
    site += "  - {id: E2, profile: keba-p30, address: 192.168.1.21, meter: M2}\n"
    assert mistakes(tmp_path, site) == ["9: wallboxes[1].meter: M2 is the meter of E1: each wallbox has one of its own"]
