"""Sharing: from the room at each place to one setpoint a wallbox.

Two steps. :func:`share` gives every wallbox that wants to charge its fair part. :func:`release` lets setpoints
follow: lower at once, raise only into confirmed room, so that no sum exceeds its bound in whatever order the writes
land. Current is reserved when it is granted, not when it is measured.

Neither knows of lines or feeders: there are numbered bounds, each with its room in amperes, and each wallbox says at
which of them it counts and how often (:data:`bridge.core.tree.Uses`). A bound that does not exist has infinite room.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from heapq import heappop, heappush
from itertools import groupby
from operator import sub
from typing import NamedTuple

from bridge.core.tree import Uses

_DUST_A = 1e-9
"""Below any current that matters: what is left of sums and differences of floats."""

SERVED, WAITING, HAD_ITS_TURN = range(3)
"""Who comes first where not all can have their minimum; see :class:`Wish`."""


class Wish(NamedTuple):
    """A wallbox that wants to charge, in amperes per line: at least ``min_a``, at most ``cap_a``.

    ``want_a`` is what the car is likely to use: more goes to it only when nobody else wants it. ``idle``: the car
    does not draw at all, even its minimum can wait. ``turn``: (one of :data:`SERVED`, :data:`WAITING`,
    :data:`HAD_ITS_TURN`; since when), the lowest first.
    """

    id: str
    uses: Uses
    min_a: float
    want_a: float
    cap_a: float
    step_a: float
    priority: int = 1
    weight: float = 1.0
    turn: tuple[int, float] = (WAITING, 0.0)
    idle: bool = False


class Share(NamedTuple):
    """What a wallbox gets, in amperes per line, and the number of the bound that keeps it from more (None: its cap)."""

    amount_a: float
    bound: int | None


class Held(NamedTuple):
    """What a box holds, in amperes per line: ``confirmed_a`` for certain, ``ceiling_a`` at most, because of setpoints
    that were sent and may have landed; ``sent_a`` is the newest of them."""

    confirmed_a: float
    ceiling_a: float
    sent_a: float


def share(wishes: Iterable[Wish], rooms: Sequence[float]) -> Mapping[str, Share]:
    """Fair shares, rounded down to each box's step; 0.0 for those who must pause.

    Higher priorities come first, the lower ones share what is left. Inside a priority, where not all can have their
    minimum, they take turns. Then the level rises for all alike, weighted, until a bound is full: whoever counts
    there stays, the others rise on (max-min fairness). What cars are not likely to use goes to those who would use
    it; only what is left then goes to idle cars, and to the others beyond their wants.
    """
    ranked = sorted(wishes, key=lambda wish: (-wish.priority, *wish.turn, wish.id))
    left = list(rooms)
    shares: dict[str, Share] = {}
    groups = [tuple(group) for _, group in groupby(ranked, lambda wish: wish.priority)]
    for group in groups:
        awake = [wish for wish in group if not wish.idle]
        _rise(_admit(awake, shares, left), {wish.id: max(wish.want_a, wish.min_a) for wish in awake}, shares, left)
    for group in groups:
        _admit([wish for wish in group if wish.idle], shares, left)
        free = [wish for wish in group if shares[wish.id].amount_a > 0 and shares[wish.id].bound is None]
        _rise(free, {wish.id: wish.cap_a for wish in free}, shares, left)
    return {
        wish.id: Share(floor_to_step(shares[wish.id].amount_a, wish.step_a), shares[wish.id].bound) for wish in ranked
    }


def _admit(wishes: Sequence[Wish], shares: dict[str, Share], left: list[float]) -> list[Wish]:
    """Those whose minimum fits beside the minima of those before them; the minima are taken off ``left``.

    Who is waiting for more room than there is just now keeps those from it that have had their turn. For the one that
    waits longest its minimum is kept free everywhere it counts: else those that need less, or fewer lines, always come
    first.
    """
    if not wishes:
        return []
    start, free = list(left), left
    kept_free: set[int] = set()
    admitted = []
    for wish in wishes:
        full = first_full(wish, left if wish.turn[0] == SERVED else free)
        if wish.cap_a + _DUST_A < wish.min_a:
            shares[wish.id] = Share(0.0, None)
        elif full is not None:
            shares[wish.id] = Share(0.0, full)
            if wish.turn[0] == WAITING and first_full(wish, start) is None:
                if not kept_free:
                    free = list(left)
                    for bound, times in wish.uses:
                        free[bound] -= times * wish.min_a
                kept_free.add(full)
        elif wish.turn[0] == HAD_ITS_TURN and not kept_free.isdisjoint([bound for bound, _ in wish.uses]):
            shares[wish.id] = Share(0.0, next(bound for bound, _ in wish.uses if bound in kept_free))
        else:
            shares[wish.id] = Share(wish.min_a, None)
            admitted.append(wish)
            for bound, times in wish.uses:
                left[bound] -= times * wish.min_a
                if free is not left:
                    free[bound] -= times * wish.min_a
    return admitted


def first_full(wish: Wish, left: Sequence[float]) -> int | None:
    """The first bound that has no room for a wallbox's minimum; None: it fits."""
    least = wish.min_a - _DUST_A
    return next((bound for bound, times in wish.uses if left[bound] < times * least), None)


def _rise(wishes: Sequence[Wish], tops: Mapping[str, float], shares: dict[str, Share], left: list[float]) -> None:
    """Raise the level for all alike until each wallbox has reached its top or a full bound; takes it off ``left``."""
    wishes = [wish for wish in wishes if tops[wish.id] > shares[wish.id].amount_a]
    if not wishes:
        return
    needs = [0.0] * len(left)
    for wish in wishes:
        more = tops[wish.id] - shares[wish.id].amount_a
        for bound, times in wish.uses:
            needs[bound] += times * more
    tight = [bound for bound, need in enumerate(needs) if need > left[bound]]
    reached = _Flood(wishes, tops, shares, left, tight).levels() if tight else {}
    for wish in wishes:
        before = shares[wish.id].amount_a
        after = shares[wish.id] = reached.get(wish.id) or Share(tops[wish.id], None)
        for bound, times in wish.uses:
            left[bound] -= times * (after.amount_a - before)


class _Basin:
    """A tight bound while the level rises: ``left`` amperes at level ``since``, and ``rate`` of them go a level."""

    __slots__ = ("left", "members", "number", "rate", "since")

    def __init__(self, number: int, left: float) -> None:
        self.number = number
        self.left = left
        self.rate = self.since = 0.0
        self.members: list[Wish] = []

    def full_at(self) -> float:
        """The level at which it will be full if nobody stops."""
        return self.since + max(0.0, self.left) / self.rate if self.rate > _DUST_A else math.inf


class _Flood:
    """The rising level, from event to event: a box begins to rise, reaches its top, or a bound becomes full.

    The level is amperes per weight: a box of weight 2 stands at twice the level. It begins to rise when the level
    has come up to what it has already.
    """

    def __init__(
        self,
        wishes: Sequence[Wish],
        tops: Mapping[str, float],
        shares: Mapping[str, Share],
        left: Sequence[float],
        tight: Iterable[int],
    ) -> None:
        self._shares = shares
        self._tops = tops
        self._basins = {bound: _Basin(bound, max(0.0, left[bound])) for bound in tight}
        self._uses: dict[str, Sequence[tuple[_Basin, int]]] = {}
        for wish in wishes:
            used = [(basin, times) for bound, times in wish.uses if (basin := self._basins.get(bound))]
            if used:
                self._uses[wish.id] = used
                for basin, _ in used:
                    basin.members.append(wish)
        self._wishes = [wish for wish in wishes if wish.id in self._uses]
        self._rising: set[str] = set()
        self._done: dict[str, Share] = {}
        self._full_at: list[tuple[float, int]] = []
        """(level, bound): not before this level a bound is full."""
        self._begun: list[Wish] = []
        """Those who began to rise since then: their bounds fill faster than was reckoned."""

    def levels(self) -> dict[str, Share]:
        """Where each box ends that counts at one of the tight bounds."""
        events = [(self._shares[wish.id].amount_a / wish.weight, index) for index, wish in enumerate(self._wishes)]
        events += [(self._tops[wish.id] / wish.weight, index) for index, wish in enumerate(self._wishes)]
        before = -math.inf
        for level, index in sorted(events):
            if level > before:
                self._fill(level)
                before = level
            wish = self._wishes[index]
            if wish.id in self._rising:
                self._stop(wish, level, None)
            elif wish.id not in self._done:
                self._rising.add(wish.id)
                self._begun.append(wish)
                self._change(wish, level, wish.weight)
        self._fill(math.inf)
        return self._done

    def _fill(self, level: float) -> None:
        """Stop everybody at those bounds that become full up to this level."""
        for basin in {basin for wish in self._begun for basin, _ in self._uses[wish.id]}:
            heappush(self._full_at, (basin.full_at(), basin.number))
        self._begun.clear()
        while self._full_at and self._full_at[0][0] <= level:
            foreseen, bound = heappop(self._full_at)
            full = self._basins[bound].full_at()
            if full > foreseen:
                # Some of those who rose have stopped meanwhile.
                if full < math.inf:
                    heappush(self._full_at, (full, bound))
                continue
            for wish in self._basins[bound].members:
                self._stop(wish, full, bound)

    def _stop(self, wish: Wish, level: float, bound: int | None) -> None:
        if wish.id in self._done:
            return
        amount = self._shares[wish.id].amount_a
        if wish.id in self._rising:
            self._rising.remove(wish.id)
            amount = self._tops[wish.id] if bound is None else min(level * wish.weight, self._tops[wish.id])
            self._change(wish, level, -wish.weight)
        self._done[wish.id] = Share(amount, bound)

    def _change(self, wish: Wish, level: float, weight: float) -> None:
        """A box begins or ceases to rise: each of its bounds fills faster or slower from here on."""
        for basin, times in self._uses[wish.id]:
            if basin.since != level:
                basin.left -= basin.rate * (level - basin.since)
                basin.since = level
            basin.rate += times * weight


def floor_to_step(amperes: float, step_a: float) -> float:
    """Round down to a whole number of steps, forgiving the dust of float arithmetic (19.9 stays 19.9)."""
    return round(math.floor(amperes / step_a + 1e-6) * step_a, 6)


def release(
    targets: Mapping[str, float],
    boxes: Iterable[Wish],
    held: Mapping[str, Held],
    rooms: Sequence[float],
    doubts: Sequence[float],
) -> Mapping[str, float]:
    """The setpoints that may be sent now on the way to ``targets`` (both in amperes per line; no target: 0.0).

    A target at or below what a box holds for certain is sent at once. Above it, the box gets what its bounds have
    left beside everyone's ceiling, but never less than it holds. ``doubts`` (how much less room there may be than it
    looks) stand against sending more than before, not against what was sent before they arose: a car is not stopped
    that is about to start.
    """
    ranked = sorted(boxes, key=lambda box: (-box.priority, box.id))
    left = list(rooms)
    for box in ranked:
        for bound, times in box.uses:
            left[bound] -= times * held[box.id].ceiling_a
    sure = list(map(sub, left, doubts))
    setpoints: dict[str, float] = {}
    for box in ranked:
        target, (confirmed, ceiling, sent) = targets.get(box.id, 0.0), held[box.id]
        if target > confirmed + _DUST_A:
            kept, more = (ceiling + tightest(box.uses, there) for there in (left, sure))
            allowed = max(confirmed, floor_to_step(min(target, max(min(kept, sent), more)), box.step_a))
            # Too little to start with: stay paused.
            target = allowed if allowed + box.step_a > box.min_a else 0.0
            for bound, times in box.uses:
                taken = times * max(0.0, target - ceiling)
                left[bound] -= taken
                sure[bound] -= taken
        setpoints[box.id] = target
    return setpoints


def tightest(uses: Uses, rooms: Sequence[float]) -> float:
    """The amperes per line that fit where there is least room; infinite where nothing is bounded."""
    return min([rooms[bound] / times for bound, times in uses], default=math.inf)
