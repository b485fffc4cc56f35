"""Properties of sharing: no bound exceeded, nobody below the minimum, fair, in turns, safe in any order of landing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from hypothesis import given
from hypothesis import strategies as st

from bridge.core.sharing import HAD_ITS_TURN, SERVED, WAITING, Held, Share, Wish, floor_to_step, release, share
from bridge.core.tree import Uses

DUST = 1e-6
LINES = [(1, 2, 3), (2, 3, 1), (1,), (2,), (3,), (1, 2)]
PLACES = 3
"""The house, and two feeders of which a wallbox hangs at one or none."""

amperes = st.floats(-20, 120).map(lambda a: round(a, 2))
rooms = st.lists(st.one_of(amperes, st.just(math.inf)), min_size=4 * PLACES, max_size=4 * PLACES)

SURE = [0.0] * 4 * PLACES
"""No doubts."""


def used(lines: Sequence[int], feeder: int = 0) -> Uses:
    """The bounds of a wallbox at the house and, if wanted, at a feeder: each line, and all together."""
    places = [0, feeder] if feeder else [0]
    return tuple(
        use for place in places for use in (*((4 * place + line - 1, 1) for line in lines), (4 * place + 3, len(lines)))
    )


def wish(id: str, lines: Sequence[int] = (1, 2, 3), cap: float = 32.0, **more: object) -> Wish:
    return Wish(id, used(lines), 6.0, cap, cap, 0.1)._replace(**more)  # type: ignore[arg-type]


def house(*lines: float, total: float = math.inf) -> list[float]:
    """Rooms of a house without feeders."""
    return [*(lines if len(lines) == 3 else lines * 3), total]


@st.composite
def boxes(draw: st.DrawFn, most: int = 8) -> list[Wish]:
    wishes = []
    for number in range(draw(st.integers(0, most))):
        cap = draw(st.sampled_from([0.0, 5.9, 6.0, 10.0, 16.0, 32.0, 13.37]))
        wishes.append(
            Wish(
                f"E{number}",
                used(draw(st.sampled_from(LINES)), draw(st.integers(0, PLACES - 1))),
                draw(st.sampled_from([6.0, 6.0, 8.0, 16.0])),
                min(cap, draw(st.sampled_from([32.0, 32.0, 9.0, 7.3]))),
                cap,
                draw(st.sampled_from([0.1, 0.1, 1.0, 0.06])),
                draw(st.sampled_from([1, 1, 1, 2, 5])),
                draw(st.sampled_from([1.0, 1.0, 0.5, 3.0])),
                (draw(st.sampled_from([SERVED, WAITING, HAD_ITS_TURN])), draw(st.sampled_from([0.0, 1.0, 2.0]))),
                draw(st.sampled_from([False, False, True])),
            )
        )
    return wishes


def sums(wishes: Sequence[Wish], amounts: Mapping[str, float]) -> list[float]:
    """What is drawn at each bound."""
    totals = [0.0] * 4 * PLACES
    for one in wishes:
        for bound, times in one.uses:
            totals[bound] += times * amounts[one.id]
    return totals


def amounts(shares: Mapping[str, Share]) -> dict[str, float]:
    return {id: part.amount_a for id, part in shares.items()}


@given(boxes(), rooms)
def test_shares_fit_and_nobody_is_below_the_minimum(wishes: list[Wish], room: list[float]) -> None:
    shares = amounts(share(wishes, room))
    assert set(shares) == {w.id for w in wishes}
    for total, there in zip(sums(wishes, shares), room, strict=True):
        assert total <= max(0.0, there) + DUST
    for one in wishes:
        amount = shares[one.id]
        assert amount == 0 or one.min_a - one.step_a - DUST <= amount <= one.cap_a + DUST
        assert amount == floor_to_step(amount, one.step_a)


@given(boxes(), rooms, st.randoms())
def test_the_order_of_the_configuration_does_not_matter(wishes: list[Wish], room: list[float], random: object) -> None:
    shuffled = list(wishes)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert share(shuffled, room) == share(wishes, room)


@given(boxes(), rooms)
def test_equal_boxes_get_equal_shares(wishes: list[Wish], room: list[float]) -> None:
    shares = amounts(share(wishes, room))
    for a in wishes:
        for b in wishes:
            if a._replace(id=b.id, turn=b.turn) == b and shares[a.id] > 0 and shares[b.id] > 0:
                assert abs(shares[a.id] - shares[b.id]) < DUST


@given(boxes(), rooms)
def test_who_gets_less_than_it_could_is_bound(wishes: list[Wish], room: list[float]) -> None:
    """Max-min fairness: where a bound keeps a box from more, nobody of its priority there has more per weight, but
    for those who need it as their minimum or who would use what this one would not."""
    shares = share(wishes, room)
    given_a = amounts(shares)
    totals = sums(wishes, given_a)
    for one in wishes:
        amount, bound = shares[one.id]
        if bound is None:
            assert amount == floor_to_step(one.cap_a, one.step_a) or one.cap_a < one.min_a
            continue
        # Rounding down leaves up to one step of every box at the bound.
        there = [(w, dict(w.uses)[bound]) for w in wishes if bound in dict(w.uses)]
        slack = sum(times * w.step_a for w, times in there)
        least = one.min_a if amount == 0 else 0.0
        if amount > 0:
            assert totals[bound] + slack + dict(one.uses)[bound] * least + DUST >= room[bound]
        if amount > 0 and one.want_a > amount + one.step_a and not one.idle:
            level = (amount + one.step_a) / one.weight
            for other, _ in there:
                if other.priority == one.priority and given_a[other.id] > other.min_a + DUST:
                    assert given_a[other.id] / other.weight <= level + DUST


@given(boxes(), rooms)
def test_a_lower_priority_never_takes_from_what_a_higher_one_uses(wishes: list[Wish], room: list[float]) -> None:
    awake = [w._replace(idle=False, want_a=w.cap_a) for w in wishes]
    everybody = share(awake, room)
    top = max((w.priority for w in awake), default=0)
    alone = share([w for w in awake if w.priority == top], room)
    assert all(abs(everybody[box].amount_a - part.amount_a) < DUST for box, part in alone.items())


def test_the_vendors_example_two_boxes_at_half_power() -> None:
    assert amounts(share([wish("E1"), wish("E2")], house(27500 / 690))) == {"E1": 19.9, "E2": 19.9}


def test_single_phase_cars_on_rotated_boxes_do_not_disturb_each_other() -> None:
    assert amounts(share([wish("E1", (1,), 16), wish("E2", (2,), 16)], house(16))) == {"E1": 16.0, "E2": 16.0}


def test_a_total_lets_a_single_phase_car_have_what_three_lines_would_share() -> None:
    """4.2 kW are 18.26 A on one line, or 6.08 A on each of three."""
    assert amounts(share([wish("E1", (1,), 16)], house(63, total=4200 / 230))) == {"E1": 16.0}
    assert amounts(share([wish("E1")], house(63, total=4200 / 230))) == {"E1": 6.0}


def test_what_a_capped_box_leaves_goes_to_the_others() -> None:
    assert amounts(share([wish("E1", cap=8), wish("E2")], house(30))) == {"E1": 8.0, "E2": 22.0}


def test_weights() -> None:
    assert amounts(share([wish("E1", weight=2.0), wish("E2")], house(30))) == {"E1": 20.0, "E2": 10.0}


def test_a_full_feeder_leaves_its_room_to_the_rest_of_the_house() -> None:
    at_feeder = [wish(f"E{n}")._replace(uses=used((1, 2, 3), 1)) for n in (1, 2)]
    room = [*house(40), *house(16), *house(math.inf)]
    shares = share([*at_feeder, wish("E3", cap=32)], room)
    assert shares == {"E1": Share(8.0, 4), "E2": Share(8.0, 4), "E3": Share(24.0, 0)}


def test_what_a_car_does_not_use_goes_to_one_that_does() -> None:
    assert amounts(share([wish("E1", want_a=8.0), wish("E2")], house(30))) == {"E1": 8.0, "E2": 22.0}
    # Nobody else wants it: then it is free to show that it does.
    assert amounts(share([wish("E1", want_a=8.0), wish("E2", cap=16)], house(30))) == {"E1": 14.0, "E2": 16.0}


def test_an_idle_car_waits_until_the_others_have_what_they_use() -> None:
    idle = wish("E1", idle=True, turn=(SERVED, 0.0))
    assert amounts(share([idle, wish("E2")], house(30))) == {"E1": 0.0, "E2": 30.0}
    assert amounts(share([idle, wish("E2", want_a=10.0)], house(30))) == {"E1": 15.0, "E2": 15.0}


def test_who_charges_stays_until_its_turn_is_over() -> None:
    serving, waiting = wish("E1", turn=(SERVED, 5.0)), wish("E2", turn=(WAITING, 1.0))
    assert amounts(share([waiting, serving], house(11))) == {"E1": 11.0, "E2": 0.0}
    assert amounts(share([waiting, serving._replace(turn=(HAD_ITS_TURN, -5.0))], house(11))) == {"E1": 0.0, "E2": 11.0}


def test_who_has_waited_longest_is_next() -> None:
    wishes = [wish("E1", turn=(WAITING, 3.0)), wish("E2", turn=(WAITING, 1.0)), wish("E3", turn=(WAITING, 2.0))]
    assert amounts(share(wishes, house(13))) == {"E1": 0.0, "E2": 6.5, "E3": 6.5}


def test_who_needs_much_to_begin_is_not_starved_by_those_who_need_little() -> None:
    big = wish("E1", min_a=16.0, turn=(WAITING, 0.0))
    small = [wish("E2", turn=(SERVED, 5.0)), wish("E3", turn=(HAD_ITS_TURN, -1.0))]
    assert amounts(share([big, *small], house(20))) == {"E1": 0.0, "E2": 20.0, "E3": 0.0}
    # ... unless it could not begin even if it were alone.
    assert amounts(share([big, *small], house(15))) == {"E1": 0.0, "E2": 7.5, "E3": 7.5}


@given(boxes(), rooms, st.data())
def test_no_order_of_landing_writes_exceeds_a_bound(wishes: list[Wish], room: list[float], data: st.DataObject) -> None:
    """Some setpoints land, in any order, some are lost for a while: the sum never exceeds old sum or new room."""
    before = {w.id: data.draw(st.sampled_from([0.0, 6.0, 10.0, 16.0, w.cap_a])) for w in wishes}
    setpoints = release(
        amounts(share(wishes, room)), wishes, {box: Held(a, a, a) for box, a in before.items()}, room, SURE
    )
    for one in wishes:
        assert setpoints[one.id] == 0 or setpoints[one.id] >= one.min_a - one.step_a - DUST
    landed = dict(before)
    start = sums(wishes, before)
    for one in data.draw(st.permutations(wishes)):
        landed[one.id] = setpoints[one.id]
        for total, was, there in zip(sums(wishes, landed), start, room, strict=True):
            # Nothing may go above the room; where it was above before, it may only come down.
            assert total <= max(there, was) + DUST


@given(boxes(), rooms)
def test_release_reaches_the_targets_once_everything_is_confirmed(wishes: list[Wish], room: list[float]) -> None:
    targets = amounts(share(wishes, room))
    ceilings: Mapping[str, float] = {w.id: w.cap_a for w in wishes}
    for _ in range(3 + len(wishes)):
        ceilings = release(targets, wishes, {box: Held(a, a, a) for box, a in ceilings.items()}, room, SURE)
    assert ceilings == targets


@given(boxes(), rooms, rooms)
def test_in_the_round_in_which_limits_fall_nobody_is_raised(
    wishes: list[Wish], room: list[float], fall: list[float]
) -> None:
    wishes = [w._replace(step_a=0.1, turn=(SERVED, 0.0)) for w in wishes]
    settled = amounts(share(wishes, room))
    held = {box: Held(a, a, a) for box, a in settled.items()}
    lower = [min(one, other) for one, other in zip(room, fall, strict=True)]
    setpoints = release(amounts(share(wishes, lower)), wishes, held, lower, SURE)
    for one in wishes:
        # What rounding down had left over may find a taker.
        assert setpoints[one.id] <= settled[one.id] + len(wishes) * 3 * 0.1 + DUST


@given(boxes(), rooms, st.lists(st.floats(0, 100), min_size=4 * PLACES, max_size=4 * PLACES), st.data())
def test_doubts_stand_against_more_not_against_what_was_sent(
    wishes: list[Wish], room: list[float], doubts: list[float], data: st.DataObject
) -> None:
    """Whatever of it has landed: nobody is stopped or lowered by doubts alone, and with them nobody gets more."""
    targets = amounts(share(wishes, room))
    before = release(targets, wishes, {w.id: Held(0.0, 0.0, 0.0) for w in wishes}, room, SURE)
    landed = {box: data.draw(st.sampled_from([0.0, sent])) for box, sent in before.items()}
    held = {box: Held(landed[box], sent, sent) for box, sent in before.items()}
    assert release(targets, wishes, held, room, [1000.0] * len(doubts)) == before
    after = release(targets, wishes, held, room, doubts)
    for one in wishes:
        assert before[one.id] <= after[one.id] + DUST
    for total, most, there, doubt in zip(sums(wishes, after), sums(wishes, before), room, doubts, strict=True):
        assert total <= max(most, there - doubt) + DUST


def test_the_same_room_is_not_given_twice() -> None:
    wishes = [wish(f"E{n}", cap=16) for n in (1, 2, 3)]
    targets = amounts(share(wishes, house(24)))
    assert targets == {"E1": 8.0, "E2": 8.0, "E3": 8.0}
    setpoints = release(
        targets, wishes, {"E1": Held(12, 12, 12), "E2": Held(0, 0, 0), "E3": Held(0, 0, 0)}, house(24), SURE
    )
    assert setpoints == {"E1": 8.0, "E2": 8.0, "E3": 0.0}, "E1 may still be drawing 12 A"


def test_what_may_not_have_landed_is_no_reason_to_send_more() -> None:
    wishes = [wish(f"E{n}", cap=16) for n in (1, 2)]
    held = {"E1": Held(0, 16, 0), "E2": Held(16, 16, 16)}
    assert release({"E1": 8.0, "E2": 8.0}, wishes, held, house(16), SURE) == {"E1": 0.0, "E2": 8.0}
