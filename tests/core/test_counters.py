"""Energy counters that misbehave: what is counted for a car is never negative and never absurd."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.core.events import Read
from bridge.core.loads.counters import SLACK_WH, followed
from bridge.core.model import Counter
from tests.core.sites import House, site

MOST_W = 33_000.0

anything = st.one_of(st.floats(-1e12, 1e12), st.sampled_from([0.0, 1.0, 65_535.0, 65_536.0, 2.0**32]))
steps = st.tuples(anything, st.sampled_from("ABCDEF"), st.floats(0, 3600))


@given(st.lists(steps, max_size=40))
def test_whatever_a_counter_says_a_session_stays_believable(told: list[tuple[float, str, float]]) -> None:
    counter, mono = Counter(), 0.0
    for wh, state, later in told:
        mono += later
        before, counter = counter, followed(counter, wh, state, mono, MOST_W)
        assert counter.believed is None or counter.believed.wh > 0
        if counter.since is None:
            continue
        assert counter.session_wh is not None
        assert 0 <= counter.session_wh <= SLACK_WH + MOST_W * (mono - counter.since) / 3600
        if before.since == counter.since and before.session_wh is not None:
            assert counter.session_wh >= before.session_wh


honest = st.lists(st.floats(0, 9), min_size=1, max_size=30)
"""Watt hours between two readings a second apart: up to 32 kW."""


@given(st.floats(1, 1e8), honest, st.lists(st.integers(0, 29)), st.sampled_from([0.0, -1.0, 1e11]))
def test_glitches_cost_nothing(start: float, deltas: list[float], at: list[int], glitch: float) -> None:
    """An honest counter that now and then says nonsense once counts as if it had not."""
    counter = followed(Counter(), start, "C", 0.0, MOST_W)
    wh = start
    for second, delta in enumerate(deltas, 1):
        if second in at:
            counter = followed(counter, glitch, "C", second - 0.5, MOST_W)
        wh += delta
        counter = followed(counter, wh, "C", float(second), MOST_W)
    assert counter.session_wh == pytest.approx(wh - start, abs=1e-3)


@given(honest, honest, st.floats(10_000, 1e9), st.sampled_from([0.5, 3.0]))
def test_a_counter_that_starts_anew_loses_one_step(
    first: list[float], second: list[float], start: float, anew: float
) -> None:
    """After a wrap or a swap of the meter, counting goes on; only what the first new value says is not known."""
    counter, mono, wh = followed(Counter(), start, "C", 0.0, MOST_W), 0.0, start
    for base, deltas in ((start, first), (anew, second)):
        for value in [base, *(base + sum(deltas[: n + 1]) for n in range(len(deltas)))]:
            mono += 1
            wh = value
            counter = followed(counter, wh, "C", mono, MOST_W)
    assert counter.session_wh == pytest.approx(sum(first) + sum(second), abs=1e-3)


def played(*told: tuple[float, str]) -> list[float | str | None]:
    """The session energy a house shows after each (count, state), ten seconds apart."""
    house, shown = House(site(1)), []
    for wh, state in told:
        house.wait(10)
        house.read("E1", {"energy_wh": wh, "state": state})
        shown.append(house.snapshot.state.devices["E1"].values.get("session_wh"))
    return shown


@pytest.mark.parametrize(
    ("told", "sessions"),
    [
        ([(500, "A"), (500, "B"), (510, "C"), (540, "C"), (540, "A"), (540, "A")], [None, 0, 10, 40, 40, 40]),
        ([(500, "A"), (500, "C"), (530, "C"), (530, "A"), (530, "B"), (550, "C")], [None, 0, 30, 30, 0, 20]),
        ([(0, "C"), (0, "C"), (8_000_000, "C"), (8_000_020, "C")], [0, 0, 0, 20]),  # right after boot
        ([(9000, "C"), (9010, "C"), (0, "C"), (0, "C"), (9025, "C")], [0, 10, 10, 10, 25]),  # restarted meanwhile
        ([(9000, "C"), (9010, "C"), (5, "C"), (9, "C"), (20, "C")], [0, 10, 10, 14, 25]),  # begins anew
        ([(65_530, "C"), (2, "C"), (9, "C")], [0, 0, 7]),  # wrapped
        ([(9000, "C"), (9e8, "C"), (9010, "C")], [0, 0, 10]),  # jumped
        ([(9000, "C"), (9e8, "C"), (9e8 + 3, "C")], [0, 0, 3]),  # jumped for good
        ([(9000, "C"), (9000, "C"), (9000, "C")], [0, 0, 0]),  # stands still
        ([(9000, "C"), (10_000, "C"), (10_000, "E"), (11_000, "C")], [0, 1000, 1000, 1276]),  # whole kWh, capped
    ],
)
def test_what_real_boxes_do(told: list[tuple[float, str]], sessions: list[float | None]) -> None:
    assert played(*told) == sessions


def test_the_raw_value_stays_visible_while_it_is_not_believed() -> None:
    house = House(site(1))
    shown = []
    for wh in (9000.0, 0.0, 9010.0):
        house.wait(10)
        house.read("E1", {"energy_wh": wh, "state": "C"})
        values = house.snapshot.state.devices["E1"].values
        shown.append((values["energy_wh"], values.get("energy_raw_wh")))
    assert shown == [(9000.0, None), (9000.0, 0.0), (9010.0, None)]


def test_a_box_that_counts_sessions_itself_is_left_alone() -> None:
    house = House(site(1))
    for wh in (9000.0, 9010.0):
        house.wait(10)
        house.read("E1", {"energy_wh": wh, "session_wh": 7.0, "state": "C"})
    assert house.snapshot.state.devices["E1"].values["session_wh"] == 7.0


def test_a_meter_is_no_wallbox() -> None:
    house = House(site(1, meter=True))
    house.happen(Read("M1", {"energy_wh": 5.0}, house.mono))
    assert house.snapshot.state.devices["M1"].values == {"energy_wh": 5.0}
