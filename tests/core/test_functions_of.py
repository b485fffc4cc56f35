"""Which function a variable belongs to, and what a function that is off keeps out."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bridge.core.config import Config, GridConfig, MeterConfig, VariableConfig, WallboxConfig
from bridge.core.formulas import parse
from bridge.core.gateway import FunctionsConfig, SmgwConfig
from bridge.core.grid.functions_of import barred
from bridge.core.model import State
from bridge.core.variables import Refused
from tests.core.sites import House

SITE = Config(
    grid=GridConfig(parse("55000 * AVAIL / 100 + M2.power_w"), wallbox_power_w=parse("PWR")),
    smgw=SmgwConfig(functions=FunctionsConfig(power_limit=False)),
    variables={
        "AVAIL": VariableConfig(parse("BASE + OTHER"), 0, 1000),
        "TARIF": VariableConfig(parse(0)),
        "FORCED": VariableConfig(parse(0), function="power_limit"),
        "FREED": VariableConfig(parse(0), function="tariffs"),
    },
    meters=(
        MeterConfig("M1", "expression", role="grid", values={"power_w": parse("AT_GRID")}),
        MeterConfig("M2", "expression", values={"power_w": parse("IN_METER")}),
        MeterConfig("M3", "expression", values={"power_w": parse("SHOWN")}),
    ),
    wallboxes=(WallboxConfig("E1", "keba-p30", "127.0.0.1:502", max_current_a=parse("LIM + FREED")),),
)

LIMITING = ("avail", "pwr", "base", "other", "forced", "at_grid", "in_meter", "lim")
FREE = ("tarif", "freed", "shown", "anything")


@pytest.mark.parametrize("key", LIMITING)
def test_what_a_limit_depends_on_belongs_to_power_limit(key: str) -> None:
    assert barred(SITE, State(), [key]) == {key: "power_limit"}


@pytest.mark.parametrize("key", FREE)
def test_everything_else_to_tariffs(key: str) -> None:
    assert barred(SITE, State(), [key]) == {}
    assert barred(off(tariffs=False), State(), [key]) == {key: "tariffs"}


def off(**switched: bool) -> Config:
    return replace(SITE, smgw=SmgwConfig(functions=FunctionsConfig(**switched)))


@pytest.mark.parametrize("config", [off(), off(ocpp=False), replace(SITE, smgw=None)])
def test_nothing_is_kept_out_while_both_are_on(config: Config) -> None:
    assert barred(config, State(), [*LIMITING, *FREE]) == {}


def test_the_sum_of_the_house_depends_on_every_meter_that_is_worked_out() -> None:
    config = replace(SITE, grid=GridConfig(parse("5000 + GM.produced.power_w")))
    assert barred(config, State(), ["shown"]) == {"shown": "power_limit"}


def test_a_formula_that_was_set_makes_others_part_of_a_limit() -> None:
    house = House(SITE)
    house.set(source="admin", PWR="SHARE * 2")
    assert barred(SITE, house.snapshot.state, ["share"]) == {"share": "power_limit"}
    assert barred(SITE, State(), ["share"], {"pwr": parse("SHARE")}) == {"share": "power_limit"}


def test_a_set_is_refused_as_a_whole_and_only_through_the_gateway() -> None:
    house = House(SITE)
    with pytest.raises(Refused, match=r"PWR: smgw.functions.power_limit is switched off") as caught:
        house.set(TARIF=1, PWR=4200)
    assert caught.value.forbidden
    house.set(source="admin", PWR=4200)
    house.set(TARIF=1)
    assert {"pwr", "tarif"} == set(house.snapshot.state.variables)


def test_clear_leaves_alone_what_may_not_be_set() -> None:
    house = House(SITE)
    house.set(source="admin", PWR=4200, TARIF=1)
    house.set(clear=True, FREED=1)
    assert set(house.snapshot.state.variables) == {"pwr", "freed"}
    house.set(clear=True, source="admin")
    assert set(house.snapshot.state.variables) == set()
