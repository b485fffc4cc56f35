"""Shares against an independent solution: lexicographic max-min fairness by linear programming.

The level of the worst off is made as high as it can be; whoever cannot be better off without pushing somebody below
that level stays there; then the next level (Nace and Pióro, "Max-min fairness and its applications", 2008).
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from bridge.core.sharing import Wish, share
from tests.core.test_sharing import boxes

optimize = pytest.importorskip("scipy.optimize")

FINE = 1e-6
"""The step of the wallboxes here, so that rounding down hides nothing."""


def fair(wishes: Sequence[Wish], rooms: Sequence[float]) -> list[float]:
    """The max-min fair amperes of each wish; every minimum must fit."""
    count = len(wishes)
    usage = [[dict(wish.uses).get(bound, 0) for wish in wishes] + [0] for bound in range(len(rooms))]
    limits = [(wish.min_a, wish.cap_a) for wish in wishes]
    settled: dict[int, float] = {}
    level = 0.0
    while len(settled) < count:
        free = [index for index in range(count) if index not in settled]
        lows = [settled.get(index, max(limits[index][0], level * wishes[index].weight)) for index in range(count)]
        # Highest level t with x >= t * weight, or its minimum or cap, for all that are not settled yet.
        candidates = [index for index in free if lows[index] < limits[index][1] - 1e-9]
        raised = {}
        for index in candidates:
            best = _most(index, lows, limits, settled, usage, rooms)
            if best <= lows[index] + 1e-7:
                settled[index] = lows[index]
            else:
                raised[index] = best
        for index in free:
            if index not in candidates:
                settled[index] = limits[index][1]
        if raised:
            level = max(level, _level(list(raised), wishes, lows, limits, settled, usage, rooms))
            for index in raised:
                if level * wishes[index].weight >= limits[index][1] - 1e-9:
                    settled[index] = limits[index][1]
    return [settled[index] for index in range(count)]


def _most(index, lows, limits, settled, usage, rooms):  # type: ignore[no-untyped-def]
    """The most one may have while nobody falls below what is sure already."""
    cost = [0.0] * (len(lows) + 1)
    cost[index] = -1.0
    spans = [(low, settled.get(i, limits[i][1])) for i, low in enumerate(lows)]
    solved = optimize.linprog(cost, A_ub=usage, b_ub=rooms, bounds=[*spans, (0, 0)], method="highs")
    assert solved.status == 0, solved.message
    return -solved.fun


def _level(raised, wishes, lows, limits, settled, usage, rooms):  # type: ignore[no-untyped-def]
    """The highest common level of those who can still rise: one by one in order of where they begin to."""
    starts = sorted(
        {max(lows[i], limits[i][0]) / wishes[i].weight for i in raised}
        | {limits[i][1] / wishes[i].weight for i in raised}
    )
    reached = 0.0
    for ceiling in [*starts[1:], float("inf")]:
        rising = [i for i in raised if max(lows[i], limits[i][0]) / wishes[i].weight < ceiling - 1e-12]
        rising = [i for i in rising if limits[i][1] / wishes[i].weight >= ceiling - 1e-12 or ceiling == float("inf")]
        rows, sides = list(usage), list(rooms)
        for i in rising:
            row = [0.0] * (len(lows) + 1)
            row[i], row[-1] = -1.0, wishes[i].weight
            rows.append(row)
            sides.append(0.0)
        for i in set(raised) - set(rising):
            if limits[i][1] / wishes[i].weight < ceiling - 1e-12:
                row = [0.0] * (len(lows) + 1)
                row[i] = -1.0
                rows.append(row)
                sides.append(-limits[i][1])
        spans = [(low, settled.get(i, limits[i][1])) for i, low in enumerate(lows)]
        cost = [0.0] * len(lows) + [-1.0]
        top = ceiling if ceiling < float("inf") else 1000.0
        solved = optimize.linprog(cost, A_ub=rows, b_ub=sides, bounds=[*spans, (0, top)], method="highs")
        if solved.status != 0:
            return reached
        reached = -solved.fun
        if reached < top - 1e-7:
            return reached
    return reached


@given(boxes(6), st.lists(st.floats(6, 120).map(lambda a: round(a, 2)), min_size=12, max_size=12))
def test_shares_are_the_max_min_fair_ones(wishes: list[Wish], rooms: list[float]) -> None:
    wishes = [w._replace(step_a=FINE, want_a=w.cap_a, priority=1, idle=False) for w in wishes if w.cap_a >= w.min_a]
    for bound, room in enumerate(rooms):
        assume(sum(dict(w.uses).get(bound, 0) * w.min_a for w in wishes) <= room - 1e-6)
    expected = fair(wishes, rooms) if wishes else []
    found = share(wishes, rooms)
    for wish, amperes in zip(wishes, expected, strict=True):
        assert abs(found[wish.id].amount_a - amperes) < 1e-4, (expected, found)
