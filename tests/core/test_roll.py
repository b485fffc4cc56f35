"""The roll call: kept from round to round as long as it holds, and never any longer."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from bridge.core import step
from bridge.core.events import Confirmed, Event, Link, Read, Reconfigured
from bridge.core.formulas import parse
from tests.core.sites import House, site

_LIMITED = site(3)
_LIMITED = replace(_LIMITED, wallboxes=tuple(replace(b, max_current_a=parse("AVAIL / 5")) for b in _LIMITED.wallboxes))

_BOXES = st.sampled_from(["E1", "E2", "E3"])
_EVENTS: st.SearchStrategy[Event | float] = st.one_of(
    st.builds(Link, _BOXES, st.booleans(), st.just("gone")),
    st.builds(Read, _BOXES, st.builds(lambda state: {"state": state}, st.sampled_from("ACE")), st.just(1000.0)),
    st.builds(Confirmed, _BOXES, st.sampled_from([0.0, 10.0, 32.0]), st.integers(0, 20)),
    st.builds(Reconfigured, st.sampled_from([site(2), site(3), _LIMITED])),
    st.sampled_from([0.0, 20.0, 50.0, 100.0]),
)


@given(st.lists(_EVENTS, max_size=40))
def test_a_kept_roll_changes_nothing(history: list[Event | float]) -> None:
    house = House(site(3))
    for event in history:
        happened = house.accepted(AVAIL=event) if isinstance(event, float) else event
        anew = step.run(replace(house.snapshot, roll=None), [happened], house.now)
        assert house.happen(happened) == anew


def test_a_set_only_meets_the_boxes_it_can_concern() -> None:
    house = House(site(3))
    house.plug("E1")
    house.plug("E2", "E3", state="A")
    before = house.obey().roll
    assert before is not None
    assert [present.box.id for present in before.present] == ["E1"]
    assert house.set(AVAIL=30).roll is before
    assert house.setpoints().keys() == {"E1", "E2", "E3"}


def test_an_idle_box_shows_its_own_limit() -> None:
    house = House(_LIMITED)
    house.plug("E1", state="A")
    house.obey()
    assert house.set(AVAIL=50).decision.setpoints["E1"].limit_a == 10.0
