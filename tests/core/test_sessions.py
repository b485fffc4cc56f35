"""Charging sessions: what is counted for a car stays true through lost links, odd counters and restarts."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.core.events import Confirmed, Event, Link, Read, Reconfigured, SessionsStored, Values
from bridge.core.formulas import parse
from bridge.core.loads.counters import SLACK_WH, most_w
from bridge.core.model import Now, State
from bridge.core.records.charging import MAX_SPANS
from bridge.core.records.session import Session
from bridge.core.records.sessions import MAX_UNSTORED
from tests.core.sites import House, site

NOTHING = Session(0, "", 0.0, 0.0).mark
"""What is not stored."""
MOST_W = most_w(site(), site().wallboxes[0])


class Garage(House):
    """A house with wallboxes that are read and say what they are told to."""

    def says(self, box: str = "E1", seconds: float = 1.0, **values: float | str) -> Session | None:
        """``seconds`` later the box is read; the session it has then."""
        self.mono += seconds
        self.utc += seconds
        self.happen(Link(box, True), Read(box, values, self.mono))
        return self.open(box)

    def charge(self, seconds: int, power_w: float, wh: float, **values: float | str) -> float:
        """A second after the other with a counter that starts at ``wh``; what it says at the end."""
        for _ in range(seconds):
            wh += power_w / 3600
            self.says(state="C", power_w=power_w, energy_wh=wh, **values)
        return wh

    def obey_once(self) -> None:
        setpoints, revision = self.setpoints(), self.snapshot.revision
        self.happen(*(Confirmed(box, amperes, revision) for box, amperes in setpoints.items()))

    def open(self, box: str = "E1") -> Session | None:
        return self.snapshot.state.sessions.open.get(box)

    def session(self, box: str = "E1") -> Session:
        found = self.open(box)
        assert found is not None
        return found

    def last(self, box: str = "E1") -> Session:
        return self.snapshot.state.sessions.last[box]

    @property
    def unstored(self) -> tuple[Session, ...]:
        return self.snapshot.state.sessions.unstored

    def restarted(self, down_s: float) -> Garage:
        """The bridge after it was gone for a while, with a monotonic clock that begins anew."""
        sessions = self.snapshot.state.sessions
        still = {id: replace(one, mark=NOTHING) for id, one in sessions.open.items() if not one.ended}
        return Garage(
            self.snapshot.config, State(sessions=replace(sessions, open=still)), Now(1000.0, self.utc + down_s)
        )


def kinds(session: Session) -> list[tuple[str, str]]:
    return [(span.doing, span.why) for span in session.spans]


# ------------------------------------------------------------------------------------------------ everyday


def test_from_plug_to_unplug() -> None:
    house = Garage(site(1))
    house.says(state="A", energy_wh=5000.0)
    assert house.open() is None
    plugged_at = house.utc + 1
    house.says(state="B", energy_wh=5000.0, power_w=0.0)
    house.obey()
    wh = house.charge(600, 11_000.0, 5000.0, current_l1_a=16.0, current_l2_a=16.0, current_l3_a=15.9)
    for _ in range(60):
        house.says(state="B", power_w=0.0, energy_wh=wh, rfid="04A1B2")
    assert house.says(state="A", energy_wh=wh) is None
    session = house.last()
    assert (session.id, session.wallbox, session.ended, session.estimated) == (1, "E1", "unplugged", False)
    assert (session.plugged_at, session.unplugged_at) == (plugged_at, house.utc)
    assert session.energy_wh == pytest.approx(11_000 * 600 / 3600)
    assert (session.start_wh, session.end_wh) == (5000.0, pytest.approx(wh))
    assert session.charging_s == pytest.approx(600)
    assert session.connected_s == pytest.approx(661)
    assert (session.phases, session.peak_w, session.rfid) == (3, 11_000.0, "04A1B2")
    assert kinds(session) == [("waiting", "car"), ("charging", ""), ("waiting", "car")]
    assert house.unstored == (session,)


@pytest.mark.parametrize(("read", "tag"), [("00000000", ""), ("", ""), (0.0, ""), ("0A00", "0A00"), (77001.0, "77001")])
def test_zeros_are_no_tag(read: str | float, tag: str) -> None:
    house = Garage(site(1))
    house.says(state="A", energy_wh=5000.0)
    house.says(state="B", energy_wh=5000.0, rfid=read)
    house.says(state="A", energy_wh=5000.0)
    assert house.last().rfid == tag


def test_ids_rise_and_sessions_wait_until_they_are_stored() -> None:
    house = Garage(site(2))
    for box in ("E1", "E2"):
        house.says(box, state="C")
    house.says("E2", state="A")
    house.says("E2", state="B")
    house.says("E1", state="A")
    assert [(one.id, one.wallbox) for one in house.unstored] == [(2, "E2"), (1, "E1")]
    house.happen(SessionsStored(frozenset({2})))
    assert [one.id for one in house.unstored] == [1]
    assert house.open("E2") is not None
    assert house.snapshot.state.sessions.last.keys() == {"E1", "E2"}


def test_the_outbox_is_bounded() -> None:
    house = Garage(site(1))
    for _ in range(MAX_UNSTORED + 5):
        house.says(state="C")
        house.says(state="A")
    assert [one.id for one in house.unstored] == [*range(6, MAX_UNSTORED + 6)]


def test_nothing_new_is_made_while_nothing_happens() -> None:
    house = Garage(site(2))
    house.says(state="C", power_w=5000.0)
    before = house.snapshot.state.sessions
    house.happen()
    house.happen(Read("E2", {"state": "A"}, house.mono))
    assert house.snapshot.state.sessions is before


# ------------------------------------------------------------------------------------------------ why not


def reason(power: str | float, *, meter: float | None = None, **box: object) -> tuple[str, str]:
    """What a car is doing in a house of 27.6 kW (40 A) at AVAIL = 100 when it could charge."""
    config = site(1, power, meter=meter is not None)
    config = replace(config, wallboxes=(replace(config.wallboxes[0], **box),))  # type: ignore[arg-type]
    house = Garage(config)
    for _ in range(15):
        if meter is not None:
            house.happen(Link("M1", True), Read("M1", {f"current_l{n}_a": meter for n in (1, 2, 3)}, house.mono))
        session = house.says(state="B", power_w=0.0)
        house.obey_once()
    assert session
    return kinds(session)[-1]


def test_reasons_of_pauses() -> None:
    assert reason(27_600) == ("waiting", "car")
    assert reason("27600 * AVAIL / 1000") == ("paused", "house_load")
    assert reason(27_600, meter=38.0) == ("paused", "house_load")
    assert reason(27_600, max_current_a=parse("0")) == ("paused", "rule")
    house = Garage(site(2, "27600 * AVAIL / 100"))
    for box in ("E1", "E2"):
        house.says(box, state="C", power_w=4000.0)
    house.obey()
    house.set(AVAIL=20)  # 8 A: enough for one
    house.obey()
    for box in ("E1", "E2"):
        house.says(box, state="B", power_w=0.0)
    assert kinds(house.session("E2"))[-1] == ("paused", "grid_limit")
    house.says("E1", state="E")
    assert kinds(house.session("E1"))[-1] == ("paused", "fault")


def test_what_flows_is_charging_whatever_the_setpoint_says() -> None:
    house = Garage(site(1, 0.0))
    session = house.says(state="C", power_w=3000.0)
    assert session
    assert kinds(session) == [("charging", "")]
    house.says(seconds=1, state="C", power_w=20.0)
    assert kinds(house.session())[-1] == ("paused", "house_load")


# ------------------------------------------------------------------------------------------------- counters


def test_a_counter_that_begins_anew_costs_nothing_and_adds_nothing() -> None:
    house = Garage(site(1))
    house.says(state="A", energy_wh=9_000_000.0)
    wh = house.charge(100, 11_000.0, 9_000_000.0)
    for _ in range(20):
        house.says(state="C", power_w=11_000.0, energy_wh=0.0)  # restarted
    house.charge(100, 11_000.0, 0.0)
    house.says(state="A", energy_wh=100 * 11_000 / 3600)
    session = house.last()
    assert session.energy_wh == pytest.approx(200 * 11_000 / 3600, abs=7)
    assert session.start_wh == pytest.approx(9_000_003, abs=1)
    assert session.end_wh is not None
    assert session.end_wh < wh


def test_a_counter_that_climbs_faster_than_a_car_can_charge_is_capped() -> None:
    house = Garage(site(1))
    for n in range(60):
        house.says(state="C", power_w=11_000.0, energy_wh=5000.0 + 900 * n)
        believable(house.session(), None)
    assert house.session().energy_wh == pytest.approx(SLACK_WH + MOST_W * 59 / 3600)


def test_a_counter_read_now_and_then_has_the_last_word() -> None:
    house = Garage(site(1))
    house.says(state="A", energy_wh=500.0)
    for _ in range(9):
        house.says(state="C", power_w=11_000.0)
    house.says(state="C", power_w=11_000.0, energy_wh=530.0)
    waiting = house.says(state="A", power_w=0.0)
    assert waiting is not None
    assert (waiting.ended, waiting.unplugged_at) == ("unplugged", house.utc)
    left_at = house.utc
    assert house.says(seconds=8, state="A", energy_wh=547.0) is None
    session = house.last()
    assert (session.energy_wh, session.unplugged_at, session.estimated) == (47.0, left_at, False)
    # and when it stays silent, or the next car comes, it is not waited for
    house.says(state="C")
    assert house.says(state="A") is not None
    assert house.wait(60).state.sessions.open == {}
    house.says(state="C")
    house.says(state="A")
    again = house.says(state="B")
    assert again
    assert (again.id, house.last().id) == (4, 3)


def test_without_a_counter_the_power_is_integrated_and_it_says_so() -> None:
    house = Garage(site(1))
    for _ in range(361):
        house.says(state="C", current_l1_a=10.0, current_l2_a=0.1, current_l3_a=0.0)
    house.happen(Link("E1", False, "no answer"))
    house.wait(3600)
    house.says(state="A")
    session = house.last()
    assert session.estimated
    assert session.phases == 1
    assert session.energy_wh == pytest.approx(10.1 * 230 * 360 / 3600, abs=1), "nothing is made up for the lost hour"


# ------------------------------------------------------------------------------------------- lost and restarted


def test_a_lost_box_keeps_its_session() -> None:
    house = Garage(site(1))
    house.says(state="A", energy_wh=100.0)
    house.charge(10, 3600.0, 100.0)
    house.happen(Link("E1", False, "no answer"))
    house.wait(600)
    assert house.open()
    wh = house.charge(10, 3600.0, 700.0)
    session = house.session()
    assert kinds(session) == [("charging", ""), ("waiting", "unreachable"), ("charging", "")]
    assert session.energy_wh == pytest.approx(wh - 101)
    assert session.pauses["unreachable"] == pytest.approx(601, abs=1)
    house.happen(Link("E1", False, "no answer"))
    house.wait(600)
    house.says(state="A", energy_wh=wh + 50)
    assert house.last().ended == "unseen"
    assert house.last().energy_wh == pytest.approx(wh - 101 + 50)


def test_silence_is_noticed_without_a_word() -> None:
    house = Garage(site(1))
    house.says(state="C", power_w=5000.0)
    house.wait(60)
    session = house.session()
    assert kinds(session)[-1] == ("waiting", "unreachable")
    assert session.energy_wh <= 5000 * 5 / 3600


def charging_when_it_stopped() -> tuple[Garage, float]:
    house = Garage(site(1))
    house.says(state="A", energy_wh=100.0)
    return house, house.charge(60, 3600.0, 100.0)


def test_a_session_goes_on_after_a_restart() -> None:
    house, wh = charging_when_it_stopped()
    before = house.open()
    again = house.restarted(600)
    assert again.open()
    session = again.says(state="C", power_w=3600.0, energy_wh=wh + 600)
    assert session
    assert before
    assert (session.id, session.plugged_at) == (1, before.plugged_at)
    assert session.energy_wh == pytest.approx(wh - 101 + 600)
    assert again.snapshot.state.devices["E1"].values["session_wh"] == pytest.approx(wh - 101 + 600)
    assert kinds(session)[-2:] == [("waiting", "unreachable"), ("charging", "")]
    assert session.connected_s == pytest.approx(before.connected_s + 600, abs=2)
    again.says(state="A", energy_wh=wh + 601)
    assert again.last().ended == "unplugged"


def test_a_car_that_left_during_a_restart() -> None:
    house, wh = charging_when_it_stopped()
    again = house.restarted(600)
    assert again.says(state="A", energy_wh=wh + 10) is None
    assert again.last().ended == "unseen"
    assert again.last().energy_wh == pytest.approx(wh - 101 + 10)
    assert again.says(state="C", energy_wh=wh + 10).id == 2  # type: ignore[union-attr]


def test_a_counter_that_does_not_fit_is_another_car_or_another_box() -> None:
    house, wh = charging_when_it_stopped()
    again = house.restarted(60)
    session = again.says(state="C", power_w=3600.0, energy_wh=wh + 90_000)
    assert session
    assert (session.id, session.energy_wh) == (2, 0.0)
    ended = again.last()
    assert (ended.id, ended.ended, ended.unplugged_at) == (1, "unknown", house.utc)
    assert ended.energy_wh == pytest.approx(wh - 101)


def test_boxes_that_say_nothing_yet_are_waited_for() -> None:
    """After a power cut the wallbox starts anew as well, and says 0 for a while."""
    house, wh = charging_when_it_stopped()
    again = house.restarted(60)
    for _ in range(10):
        waiting = again.says(state="C", power_w=0.0, energy_wh=0.0)
        assert waiting
        assert kinds(waiting)[-1] == ("waiting", "unreachable")
    session = again.says(state="C", power_w=3600.0, energy_wh=wh + 5)
    assert session
    assert (session.id, session.energy_wh) == (1, pytest.approx(wh - 101 + 5))


def test_a_clock_that_was_wrong_makes_no_energy() -> None:
    house, wh = charging_when_it_stopped()
    again = house.restarted(-1e6)
    session = again.says(state="C", power_w=3600.0, energy_wh=wh + 20)
    assert session
    assert session.energy_wh == pytest.approx(wh - 101 + 20)
    assert session.connected_s == pytest.approx(61, abs=2)


def test_a_wallbox_that_is_taken_out_of_the_configuration() -> None:
    house, _ = charging_when_it_stopped()
    house.happen(Reconfigured(site(0)))
    house.happen()
    assert house.open() is None
    assert house.last().ended == "unknown"


# --------------------------------------------------------------------------------------------- whatever happens

counts = st.one_of(st.floats(-1e9, 1e9), st.sampled_from([0.0, 65_536.0, float("inf"), float("nan")]))
readings = st.fixed_dictionaries(
    {"state": st.sampled_from("ABCCCDEF")},
    optional={
        "energy_wh": counts,
        "power_w": st.one_of(st.floats(-1e7, 1e7), st.just(float("nan"))),
        "current_l1_a": st.floats(-100, 1e4),
        "phases": st.floats(-5, 5),
        "rfid": st.sampled_from(["", "04A1B2", 17.0]),
    },
)
happenings = st.lists(
    st.tuples(
        st.floats(0, 600), st.one_of(readings, st.sampled_from([Link("E1", False), Link("E1", True), "restart", None]))
    ),
    max_size=40,
)


def believable(session: Session, before: Session | None) -> None:
    connected_s = session.connected_s
    assert 0 <= session.energy_wh <= SLACK_WH + MOST_W * connected_s / 3600 + 1e-6
    assert sum(span.energy_wh for span in session.spans) == pytest.approx(session.energy_wh)
    assert all(span.energy_wh >= 0 for span in session.spans)
    assert session.plugged_at == session.spans[0].at
    assert [span.at for span in session.spans] == sorted(span.at for span in session.spans)
    assert all(one[1:3] != next_[1:3] for one, next_ in zip(session.spans, session.spans[1:], strict=False))
    assert 0 <= session.charging_s <= connected_s
    assert 0 <= session.peak_w <= MOST_W
    if session.unplugged_at is not None:
        assert session.ended
        assert session.unplugged_at >= session.spans[-1].at - 1e-6
        assert session.unplugged_at - session.plugged_at == pytest.approx(connected_s, abs=0.01)
    if before is not None and before.id == session.id:
        assert session.energy_wh >= before.energy_wh
        assert connected_s >= before.connected_s


@given(happenings)
def test_whatever_happens_a_session_stays_believable(told: list[tuple[float, Values | Event | str | None]]) -> None:
    house, ids = Garage(site(1)), 0
    for seconds, what in told:
        before = house.open()
        if what == "restart":
            house = house.restarted(seconds)
        elif isinstance(what, dict):
            house.says(seconds=seconds, **what)
        else:
            house.wait(seconds)
            house.happen(*([what] if isinstance(what, Event) else []))
        for session in (*house.snapshot.state.sessions.open.values(), *house.unstored):
            believable(session, before)
        assert house.snapshot.state.sessions.last_id >= ids
        ids = house.snapshot.state.sessions.last_id


@given(st.lists(st.floats(0, 9), min_size=1, max_size=60), st.data())
def test_an_honest_counter_is_counted_to_the_watt_hour(deltas: list[float], data: st.DataObject) -> None:
    """However often it is read, whatever links are lost and however often the bridge starts anew."""
    house, wh = Garage(site(1)), 1000.0
    house.says(state="A", energy_wh=wh)
    house.says(state="B", energy_wh=wh)
    for delta in deltas:
        wh += delta
        match data.draw(st.sampled_from(["read", "read", "silent", "lost", "restart"])):
            case "restart":
                house = house.restarted(1.0)
            case "lost":
                house.wait(1)
                house.happen(Link("E1", False))
            case "silent":
                house.says(state="C", power_w=5000.0)
            case _:
                house.says(state="C", power_w=5000.0, energy_wh=wh)
    house.says(state="A", energy_wh=wh)
    assert house.last().id == 1
    assert house.last().energy_wh == pytest.approx(sum(deltas), abs=1e-6)


def test_spans_are_merged_when_there_are_too_many() -> None:
    house = Garage(site(1))
    wh = 1000.0
    house.says(state="A", energy_wh=wh)
    for n in range(3 * MAX_SPANS):
        wh += 2.0
        house.says(seconds=3 if n % 50 else 300, state="BC"[n % 2], power_w=5000.0, energy_wh=wh)
        session = house.session()
        assert len(session.spans) <= MAX_SPANS
        believable(session, None)
    assert session.energy_wh == pytest.approx(wh - 1002)
