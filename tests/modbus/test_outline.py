"""The JSON Schema for editors accepts what the product accepts, and rejects what it rejects for one value's sake."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path

import pytest
from jsonschema import Draft7Validator, FormatChecker
from ruamel.yaml import YAML

from bridge.__main__ import main
from bridge.modbus import outline
from bridge.modbus.load import available
from tests.modbus.house import BOX, METER
from tests.modbus.test_profile import STATION, WITHIN

COMMITTED = Path(__file__).parents[2] / "docs" / "profile.schema.json"


def tree(text: str) -> object:
    """As editors see it: names are texts, also where YAML would allow a number."""
    return json.loads(json.dumps(YAML(typ="safe").load(StringIO(text))))


def problems(text: str) -> list[str]:
    return [
        error.message
        for error in Draft7Validator(outline.json_schema(), format_checker=FormatChecker()).iter_errors(tree(text))
    ]


def test_it_is_a_schema() -> None:
    Draft7Validator.check_schema(outline.json_schema())


@pytest.mark.parametrize("name", sorted(available()))
def test_every_shipped_profile_is_fine(name: str) -> None:
    assert problems(available()[name].read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("text", [BOX, METER, STATION], ids=["box", "meter", "station"])
def test_small_profiles_are_fine(text: str) -> None:
    assert problems(text) == []


@pytest.mark.parametrize(("was", "now", "said"), WITHIN, ids=[slip[1][:30] for slip in WITHIN])
def test_it_rejects_what_the_product_rejects(was: str, now: str, said: str) -> None:
    assert problems(BOX.replace(was, now, 1))


@pytest.mark.parametrize(
    "more",
    [
        "failsafe: {current_a: 6}",
        "keepalive: {every_s: 5}",
        "keepalive: {every_s: 5, read: state, writes: [{point: set_current, value: 1}]}",
        "phases: {one: [], three: [{point: set_current, value: 1}]}",
        "connection: {port: 0}",
        "connection: {max_block: 126}",
        "connection: {serial: {parity: X}}",
        "connectors: {max: 2}",
        "derived: {power_factor: true}",
        "confidence: certain",
    ],
)
def test_it_knows_bounds_words_and_what_is_missing(more: str) -> None:
    assert problems(f"{BOX}{more}\n")


def test_units_are_told_where_quantities_stand() -> None:
    points = outline.json_schema()["properties"]["points"]["properties"]
    assert points["power_w"]["description"] == "in W"


def test_the_command_prints_it_and_the_documentation_has_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profiles", "--schema"]) == 0
    printed = capsys.readouterr().out
    assert printed == COMMITTED.read_text(encoding="utf-8"), "smgw-bridge profiles --schema > docs/profile.schema.json"
