"""Properties of sharing: nobody above the room, nobody below the minimum, fair, and safe in any order of landing."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bridge.core.sharing import Held, Wish, floor_to_step, release, share

DUST = 1e-6
LINES = [(1, 2, 3), (2, 3, 1), (1,), (2,), (3,), (1, 2)]

amperes = st.floats(0, 80, allow_nan=False).map(lambda a: round(a, 2))
rooms = st.tuples(*[st.floats(-20, 120).map(lambda a: round(a, 2))] * 3)


@st.composite
def boxes(draw: st.DrawFn, most: int = 8) -> list[Wish]:
    wishes = []
    for number in range(draw(st.integers(0, most))):
        minimum = draw(st.sampled_from([6.0, 6.0, 8.0, 16.0]))
        wishes.append(
            Wish(
                f"E{number}",
                draw(st.sampled_from(LINES)),
                minimum,
                draw(st.sampled_from([0.0, 5.9, 6.0, 10.0, 16.0, 32.0, 13.37])),
                draw(st.sampled_from([0.1, 0.1, 1.0, 0.06])),
                draw(st.sampled_from([1, 1, 1, 2, 5])),
                draw(st.booleans()),
            )
        )
    return wishes


def line_sums(wishes: list[Wish], amounts: dict[str, float]) -> list[float]:
    return [sum(amounts[w.id] for w in wishes if line in w.lines) for line in (1, 2, 3)]


@given(boxes(), rooms)
def test_shares_fit_and_nobody_is_below_the_minimum(wishes: list[Wish], room: tuple[float, float, float]) -> None:
    shares = dict(share(wishes, room))
    assert set(shares) == {w.id for w in wishes}
    for total, line_room in zip(line_sums(wishes, shares), room, strict=True):
        assert total <= max(0.0, line_room) + DUST
    for wish in wishes:
        amount = shares[wish.id]
        assert amount == 0 or wish.min_a - wish.step_a - DUST <= amount <= wish.cap_a + DUST
        assert amount == floor_to_step(amount, wish.step_a)


@given(boxes(), rooms)
def test_equal_boxes_get_equal_shares(wishes: list[Wish], room: tuple[float, float, float]) -> None:
    shares = share(wishes, room)
    for a in wishes:
        for b in wishes:
            same = (a.lines, a.min_a, a.cap_a, a.step_a, a.priority) == (
                b.lines,
                b.min_a,
                b.cap_a,
                b.step_a,
                b.priority,
            )
            if same and shares[a.id] > 0 and shares[b.id] > 0:
                assert abs(shares[a.id] - shares[b.id]) < DUST


@given(boxes(), rooms)
def test_who_gets_less_is_bound_by_a_full_line_or_its_cap(wishes: list[Wish], room: tuple[float, float, float]) -> None:
    """Max–min fairness: nobody could get a step more without somebody with no more than that getting less."""
    shares = dict(share(wishes, room))
    sums = line_sums(wishes, shares)
    for wish in wishes:
        amount = shares[wish.id]
        if amount == 0 or amount + wish.step_a > wish.cap_a:
            continue
        # Rounding down leaves up to one step of every box on the line.
        slack = sum(w.step_a for w in wishes if shares[w.id] > 0)
        full = [line for line in wish.lines if sums[line - 1] + slack + DUST >= room[line - 1]]
        assert full, f"{wish} could have more"
        assert any(
            all(
                shares[w.id] <= max(amount + wish.step_a + w.step_a, w.min_a) + DUST
                for w in wishes
                if line in w.lines and w.priority <= wish.priority
            )
            for line in full
        )


@given(boxes(), rooms)
def test_a_lower_priority_never_takes_from_a_higher_one(wishes: list[Wish], room: tuple[float, float, float]) -> None:
    everybody = share(wishes, room)
    top = max((w.priority for w in wishes), default=0)
    alone = share([w for w in wishes if w.priority == top], room)
    assert all(abs(everybody[box] - amount) < DUST for box, amount in alone.items())


def test_the_vendors_example_two_boxes_at_half_power() -> None:
    room = 27500 / 690
    wishes = [Wish(f"E{n}", (1, 2, 3), 6, 32, 0.1) for n in (1, 2)]
    assert share(wishes, (room, room, room)) == {"E1": 19.9, "E2": 19.9}


def test_single_phase_cars_on_rotated_boxes_do_not_disturb_each_other() -> None:
    wishes = [Wish("E1", (1,), 6, 16, 0.1), Wish("E2", (2,), 6, 16, 0.1)]
    assert share(wishes, (16, 16, 16)) == {"E1": 16.0, "E2": 16.0}


def test_what_a_capped_box_leaves_goes_to_the_others() -> None:
    wishes = [Wish("E1", (1, 2, 3), 6, 8, 0.1), Wish("E2", (1, 2, 3), 6, 32, 0.1)]
    assert share(wishes, (30, 30, 30)) == {"E1": 8.0, "E2": 22.0}


def test_who_charges_already_is_spared_when_not_all_can_have_the_minimum() -> None:
    wishes = [Wish("E1", (1, 2, 3), 6, 16, 0.1), Wish("E2", (1, 2, 3), 6, 16, 0.1, charging=True)]
    assert share(wishes, (11, 11, 11)) == {"E1": 0.0, "E2": 11.0}


@given(boxes(), rooms, st.data())
def test_no_order_of_landing_writes_exceeds_the_room(
    wishes: list[Wish], room: tuple[float, float, float], data: st.DataObject
) -> None:
    """Some setpoints land, in any order, some are lost for a while: the sum never exceeds old sum or new room."""
    before = {w.id: data.draw(st.sampled_from([0.0, 6.0, 10.0, 16.0, w.cap_a])) for w in wishes}
    setpoints = release(share(wishes, room), wishes, {box: Held(a, a) for box, a in before.items()}, room)
    for wish in wishes:
        assert setpoints[wish.id] == 0 or setpoints[wish.id] >= wish.min_a - wish.step_a - DUST
    landed = dict(before)
    start = line_sums(wishes, before)
    for wish in data.draw(st.permutations(wishes)):
        landed[wish.id] = setpoints[wish.id]
        for total, was, line_room in zip(line_sums(wishes, landed), start, room, strict=True):
            # Nothing may go above the room; where it was above before, it may only come down.
            assert total <= max(line_room, was) + DUST


@given(boxes(), rooms)
def test_release_reaches_the_targets_once_everything_is_confirmed(
    wishes: list[Wish], room: tuple[float, float, float]
) -> None:
    targets = share(wishes, room)
    ceilings = {w.id: w.cap_a for w in wishes}
    for _ in range(3 + len(wishes)):
        ceilings = dict(release(targets, wishes, {box: Held(a, a) for box, a in ceilings.items()}, room))
    assert ceilings == dict(targets)


def test_the_same_room_is_not_given_twice() -> None:
    wishes = [Wish(f"E{n}", (1, 2, 3), 6, 16, 0.1) for n in (1, 2, 3)]
    targets = share(wishes, (24, 24, 24))
    assert targets == {"E1": 8.0, "E2": 8.0, "E3": 8.0}
    setpoints = release(targets, wishes, {"E1": Held(12, 12), "E2": Held(0, 0), "E3": Held(0, 0)}, (24, 24, 24))
    assert setpoints == {"E1": 8.0, "E2": 8.0, "E3": 0.0}, "E1 may still be drawing 12 A"


def test_what_may_not_have_landed_is_no_reason_to_send_more() -> None:
    wishes = [Wish(f"E{n}", (1, 2, 3), 6, 16, 0.1) for n in (1, 2)]
    held = {"E1": Held(0, 16), "E2": Held(16, 16)}
    assert release({"E1": 8.0, "E2": 8.0}, wishes, held, (16, 16, 16)) == {"E1": 0.0, "E2": 8.0}
