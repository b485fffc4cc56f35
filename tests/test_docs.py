"""The documentation names everything there is, and nothing that is not."""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
from importlib import resources
from io import StringIO
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from bridge import __main__ as command_line
from bridge.config import PLANNED, hints, load
from bridge.core.config import (
    Config,
    ContactConfig,
    DeviceConfig,
    GridConfig,
    GroupConfig,
    HttpConfig,
    MeterConfig,
    MqttConfig,
    SetpointConfig,
    SourceConfig,
    VariableConfig,
    WallboxConfig,
)
from bridge.core.events import Link, Override, Read
from bridge.core.formulas import FUNCTIONS, parse
from bridge.core.gateway import FarEndConfig, FunctionsConfig, SmgwConfig
from bridge.core.rules.rule import RuleConfig
from bridge.http import cnf
from bridge.http.administration import Administration
from bridge.http.app import PAGES, Views, make_app
from bridge.http.passwords import PasswordFile
from bridge.modbus.quantities import QUANTITIES
from bridge.mqtt import commands
from bridge.mqtt.render import render
from tests.core.sites import House, site

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("*/*.md"), ROOT / "tests/stories/README.md"])


def document(name: str) -> str:
    return (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")


def sections(name: str) -> dict[str, str]:
    """Heading of the second level to the text below it; "" is what stands before the first."""
    first, *others = re.split(r"^## ", document(name), flags=re.MULTILINE)
    return {"": first} | {text.partition("\n")[0].strip(): text.partition("\n")[2] for text in others}


# ------------------------------------------------------------------------------------------------ configuration

SHAPES = {
    "The file": (Config, ()),
    "http": (HttpConfig, ()),
    "mqtt": (MqttConfig, ()),
    "smgw": (SmgwConfig, ()),
    "functions": (FunctionsConfig, ()),
    "far_ends": (FarEndConfig, ()),
    "grid": (GridConfig, ()),
    "variables": (VariableConfig, ()),
    "contacts": (ContactConfig, ()),
    "groups": (GroupConfig, ()),
    "meters": (MeterConfig, ()),
    "wallboxes": (WallboxConfig, (DeviceConfig,)),
    "rules": (RuleConfig, ()),
    "topics": (SourceConfig, ()),
    "setpoint": (SetpointConfig, ()),
}
"""Section to the dataclass it documents, and to those whose keys another section documents."""


def rows(section: str) -> dict[str, str]:
    """Key to its row in the table of a section."""
    lines = sections("configuration")[section].splitlines()
    return {match[1]: line for line in lines if (match := re.match(r"\| `(\w+)` \|", line))}


def keys(shape: type) -> dict[str, object]:
    """Key to default; MISSING for keys that must be given."""
    none = dataclasses.MISSING
    return {
        field.name.removesuffix("_"): field.default if field.default_factory is none else field.default_factory()
        for field in dataclasses.fields(shape)
        if field.init
    }


@pytest.mark.parametrize("section", SHAPES)
def test_every_key_is_documented_and_no_other(section: str) -> None:
    shape, elsewhere = SHAPES[section]
    there = keys(shape).keys() - {key for other in elsewhere for key in keys(other)}
    assert rows(section).keys() == there


@pytest.mark.parametrize("section", [section for section in SHAPES if section != "The file"])
def test_defaults_are_true(section: str) -> None:
    for key, row in rows(section).items():
        default = keys(SHAPES[section][0])[key]
        cell = row.split(" | ")[2]
        if default is dataclasses.MISSING:
            assert cell == "required", row
        elif isinstance(default, bool):
            assert cell == f"`{default}`".lower(), row
        elif isinstance(default, int | float):
            assert cell == f"{default:g}", row
        elif isinstance(default, tuple):
            assert cell == f"`[{', '.join(map(str, default))}]`", row
        elif isinstance(default, str) and default:
            assert f"`{default}`" in cell, row


def test_what_is_planned_is_listed() -> None:
    text = sections("configuration").get("Not built yet", "")
    listed = {key.replace("[]", "") for key in re.findall(r"`([a-z_.*\[\]]+)`", text)}
    assert listed == set(PLANNED)


def test_every_section_of_the_file_has_a_shape() -> None:
    assert {"http", "mqtt", "smgw", "grid", "variables", "contacts", "meters", "groups", "wallboxes"} == {
        key for key in keys(Config) if key not in ("site", "profiles", "state_dir")
    }


# ----------------------------------------------------------------------------------------------------- commands


def subcommands() -> dict[str, argparse.ArgumentParser]:
    parser = command_line._parser()
    (found,) = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    return dict(found.choices)


def test_every_command_is_documented_and_no_other() -> None:
    assert sections("commands").keys() - {""} == subcommands().keys()


@pytest.mark.parametrize("name", subcommands())
def test_every_option_is_documented(name: str) -> None:
    usage = sections("commands")[name].split("`")[1]
    assert usage.startswith(f"smgw-bridge {name}")
    for action in subcommands()[name]._actions:
        if "--help" in action.option_strings:
            continue
        words = action.option_strings[:1] or [str(action.metavar)]
        assert re.search(rf"(^|[ \[]){re.escape(words[0])}(…|[ \]]|$)", usage), f"{name}: {words[0]}"
    for option in re.findall(r"--?[a-z-]+", usage.removeprefix(f"smgw-bridge {name}")):
        known = {string for action in subcommands()[name]._actions for string in action.option_strings}
        assert option in known, f"{name} has no {option}"


# ------------------------------------------------------------------------------------- formulas, topics, requests


@pytest.mark.parametrize("function", FUNCTIONS)
def test_every_function_is_documented(function: str) -> None:
    assert f"| `{function}(" in document("formulas")


def rich_house() -> House:
    """A house in which everything that can be shown is shown."""
    house = House(site(2, meter=True, failsafe_power_w=4200.0))
    house.happen(*(Link(device, True) for device in ("M1", "E1")))
    house.set(AVAIL="100 + 50", NONE="1 / 0", FINE=1)
    values = {name: "A" if name == "state" else 1.0 for name in QUANTITIES}
    measured = {name: value for name, value in values.items() if name not in ("limit_a", "phases", "state")}
    house.happen(Read("M1", measured, house.mono), Read("E1", values, house.mono))
    house.happen(Override("E1", "admin", current_a=8.0))
    house.obey("E1")
    return house


def test_every_topic_is_documented() -> None:
    text = document("mqtt")
    named = set(re.findall(r"`([A-Za-z0-9_/]+)`", text))
    for topic in render(rich_house().snapshot):
        head, *rest = topic.split("/")
        pattern = {"vars": "vars/NAME", "alarm": "alarm/NAME", "meters": "meters/ID", "wallboxes": "wallboxes/ID"}
        if head in pattern:
            rest = rest[1:]
        written = "/".join([pattern.get(head, head), *rest])
        # One name stands for all three lines, or for all inputs.
        written = re.sub(r"input_[2-8]", "input_1", written)
        spellings = {written, written.rpartition("/")[2]}
        spellings |= {re.sub(r"_l[123]", "_l1", word) for word in spellings} | {
            re.sub(r"_l[123]", "", word) for word in spellings
        }
        assert spellings & named, f"{topic} is not in docs/mqtt.md"


@pytest.mark.parametrize("command", commands._COMMANDS)
def test_every_mqtt_command_is_documented(command: str) -> None:
    assert f"| `{command}` |" in document("mqtt")


def test_every_path_is_documented(tmp_path: Path) -> None:
    house = House(site())
    views = Views(lambda: house.snapshot, PasswordFile(tmp_path / "password"))
    app = make_app(views, Administration(None, None))  # type: ignore[arg-type]
    text = document("http")
    parts_of_the_page = {path for path in PAGES if path.rpartition(".")[2] in ("css", "js", "svg")}
    for rule in app.url_map.iter_rules():
        if rule.rule not in parts_of_the_page:
            path = rule.rule.replace("<int:number>", "N").replace("<name>", "NAME")
            assert re.search(rf"[` '0]{re.escape(path)}[`' ,?]", text), f"{path} is not in docs/http.md"
    for command in cnf.COMMANDS:
        assert f"cmd={command}" in text
    there = [re.sub(r"<(int:)?\w+>", "[A-Z0-9]+", rule.rule) for rule in app.url_map.iter_rules()]
    for path in set(re.findall(r"/api/[\w/.]+", text)):
        assert any(re.fullmatch(route, path) for route in there), f"{path} is in docs/http.md, but not there"


def test_the_machine_readable_form_has_every_path(tmp_path: Path) -> None:
    text = (resources.files("bridge.http") / "pages" / "openapi.json").read_text()
    described = set(json.loads(text)["paths"])
    house = House(site())
    views = Views(lambda: house.snapshot, PasswordFile(tmp_path / "password"))
    app = make_app(views, Administration(None, None))  # type: ignore[arg-type]
    served = {re.sub(r"<(?:int:)?(\w+)>", r"{\1}", rule.rule) for rule in app.url_map.iter_rules()} | {"/cnf"}
    served = {path for path in served if path not in PAGES}
    assert {re.sub(r"{\w+}", "{}", path) for path in described} >= {re.sub(r"{\w+}", "{}", path) for path in served}


# -------------------------------------------------------------------------------------------------------- links


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", path.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (path.parent / target).exists(), f"{path.name}: {target}"


def test_files_named_for_contributors_are_there() -> None:
    for name in ("CONTRIBUTING.md", "docs/architecture.md"):
        for target in re.findall(r"`((?:bridge|tests|docs)/[\w./]+)`", (ROOT / name).read_text(encoding="utf-8")):
            assert (ROOT / target).exists(), f"{name}: {target}"


def test_every_document_can_be_found_from_the_readme() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [page.name for page in (ROOT / "docs").glob("*.md") if f"docs/{page.name}" not in text] == []


def test_the_rules_in_the_docs_are_rules(tmp_path: Path) -> None:
    """Each example is a piece of the file, and has the meters it speaks of."""
    examples = re.findall(r"```yaml\n(.*?)```", document("rules"), re.DOTALL)
    assert len(examples) > 5
    meters = [{"id": "M1", "profile": "http-input", "role": "grid"}, {"id": "M3", "profile": "http-input"}]
    for example in map(YAML(typ="safe").load, examples):
        box = {"id": "E1", "profile": "http-input", "rules": example.get("rules", [])}
        grid = {"connection_power_w": 30000, **example.get("grid", {})}
        site = StringIO()
        YAML().dump({"grid": grid, "meters": meters, "wallboxes": [box]}, site)
        path = tmp_path / "bridge.yaml"
        path.write_text(site.getvalue(), encoding="utf-8")
        for hint in hints(load(path)):
            assert "TARIF" in hint.upper(), hint


def test_formulas_in_the_docs_are_formulas() -> None:
    for name in ("configuration", "commands"):
        for formula in re.findall(r"smgw-bridge try '([^']+)'", document(name)):
            parse(formula)
