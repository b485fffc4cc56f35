"""Limits that come back: never above what the formula allows, never faster than the ramp, and there in time."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.core.events import Reconfigured
from bridge.core.formulas import parse
from bridge.core.grid import ramp
from bridge.core.grid.ramp import Release, eased
from bridge.core.model import State, Variable
from tests.core.sites import House, site

RAMP_S, DELAY_S = 100.0, 20.0

rounds = st.lists(st.tuples(st.floats(0, 30), st.sampled_from([0.0, 4200.0, 11000.0, 20000.0, 40000.0])), max_size=40)


@given(rounds, st.sampled_from([0.0, 0.5, 5.0, RAMP_S]), st.sampled_from([0.0, DELAY_S]))
def test_never_above_the_formula_and_never_faster_than_the_ramp(
    steps: list[tuple[float, float]], ramp_s: float, delay_s: float
) -> None:
    known, mono = Release(4200.0, 0.0), 0.0
    for gap, raw in steps:
        before, mono = known, mono + gap
        known = eased(before, raw, True, mono, ramp_s, delay_s) or Release(raw, mono)
        assert known.amount <= raw
        if known.amount > before.amount and ramp_s > 0:
            # A step may make up for those that were put off, never for more.
            assert known.amount - before.amount <= (mono - before.mono) * raw / ramp_s + 1e-6
        if raw <= before.amount:
            assert known.amount == raw, "lower at once"


@given(st.floats(0, 40_000), st.floats(1, 40_000), st.floats(0.01, 3.0))
def test_it_arrives_in_time(begin: float, raw: float, gap: float) -> None:
    known: Release | None = Release(begin, 0.0)
    mono = 0.0
    while mono < DELAY_S:
        known, mono = eased(known, raw, False, mono, RAMP_S, DELAY_S), mono + gap
        if begin < raw:
            assert known is not None
            assert known.amount == begin, "not before its time"
        else:
            assert known is None
            return
    while mono < DELAY_S + RAMP_S + ramp.STEP_S + 2 * gap:
        known, mono = eased(known, raw, False, mono, RAMP_S, DELAY_S), mono + gap
    assert known is None


def test_what_was_not_reduced_is_not_eased() -> None:
    assert eased(None, 10_000, False, 0.0, RAMP_S, DELAY_S) is None
    assert eased(None, 40_000, False, 1.0, RAMP_S, DELAY_S) is None


@given(st.floats(0, 1, exclude_max=True), st.integers(0, 10_000))
def test_delays_are_spread(lot: float, number: int) -> None:
    spread = sorted(ramp.delay_s(600, lot, number + more) for more in range(10))
    assert spread[0] >= 0
    assert spread[-1] <= 600
    assert max(b - a for a, b in itertools.pairwise(spread)) < 150


def test_houses_of_one_street_do_not_come_back_together() -> None:
    assert len({ramp.delay_s(600, lot / 10, 7) for lot in range(10)}) == 10


# ----------------------------------------------------------------------------------------------- in the house


def test_home_automation_is_not_eased() -> None:
    config = site(1, "min(55000 * AVAIL / 100, WISH)", return_ramp_s=100.0)
    wish = replace(config.variables["AVAIL"], initial=parse(55000), min=None, max=None, writers=("mqtt",))
    house = House(replace(config, variables={**config.variables, "WISH": wish}))
    house.set(source="mqtt", WISH=5000)
    assert house.snapshot.decision.grid.limit_w == 5000
    house.wait(10)
    assert house.set(source="mqtt", WISH=55000).decision.grid.limit_w == 55000
    house.set(AVAIL=20)
    house.set(source="mqtt", WISH=3000)
    house.set(AVAIL=100)
    assert house.wait(0).decision.grid.limit_w == 3000
    assert house.set(source="mqtt", WISH=55000).decision.grid.limit_w == 11000, "the gateway's share is still eased"


def test_a_formula_that_is_written_anew_does_not_end_the_rise() -> None:
    house = House(site(1, "30000 * AVAIL / 100", return_ramp_s=100.0))
    house.set(AVAIL=10)
    house.set(AVAIL=100)
    assert house.wait(10).decision.grid.limit_w == pytest.approx(6000)
    house.happen(Reconfigured(site(1, "31000 * AVAIL / 100", return_ramp_s=100.0)))
    assert house.snapshot.decision.grid.limit_w == pytest.approx(6000)
    assert house.wait(10).decision.grid.limit_w == pytest.approx(9100)


def test_the_delay_is_kept_and_the_limit_then_rises() -> None:
    house = House(site(1, return_ramp_s=100.0, return_delay_s=60.0), State(lot=0.5))
    house.set(AVAIL=0)
    house.set(AVAIL=100)
    delay_s = ramp.delay_s(60, 0.5, 1)
    assert 1 < delay_s < 59
    assert house.wait(delay_s - 0.5).decision.grid.limit_w == 0
    assert house.wait(10.5).decision.grid.limit_w == pytest.approx(5500)
    assert house.snapshot.decision.grid.state == "limited"
    assert house.wait(95).decision.grid.state == "unlimited"


@pytest.mark.parametrize(("ago_s", "limit_w"), [(50, 4200), (-3600, 4200), (101, 55000)])
def test_a_restart_in_the_middle_begins_anew_from_the_fail_safe(ago_s: float, limit_w: float) -> None:
    variables = {"avail": Variable("AVAIL", parse(100), "smgw", 1_790_000_000.0 - ago_s)}
    house = House(site(1, return_ramp_s=100.0), State(variables=variables))
    assert house.snapshot.decision.grid.limit_w == limit_w
    assert house.wait(101).decision.grid.limit_w == 55000


def test_without_a_value_it_is_never_more_than_what_was_left() -> None:
    house = House(site(1, "55000 * AVAIL / 100 / GOOD", return_ramp_s=100.0))
    house.set(AVAIL=2, GOOD=1)
    assert house.wait(1).decision.grid.limit_w == 1100
    house.set(GOOD=0)
    assert house.snapshot.decision.grid.state == "failsafe"
    assert house.snapshot.decision.grid.limit_w == 1100
    house.set(AVAIL=100, GOOD=1)
    assert house.snapshot.decision.grid.limit_w == 1100
    assert house.wait(0.5).decision.grid.limit_w < 3000
