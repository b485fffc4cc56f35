"""The days that are played, and the step to which ten houses answer."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.days.boxes import QUICK, SLOW, Manners
from bench.days.cars import Car
from bench.days.houses import flat, household
from bench.days.plan import Command, Day, Visit
from bench.days.sites import home, park
from bench.days.world import World

HOUR = 3600.0
DEAF = Manners(deaf=((7.1 * HOUR, 7.15 * HOUR), (19 * HOUR, 19.1 * HOUR)))
GONE = Manners(gone=((0.5 * HOUR, 0.5 * HOUR + 600), (18.7 * HOUR, 18.7 * HOUR + 600)))
UNSEEN = Manners(measures=False)


@dataclass(frozen=True)
class Planned:
    """A day, how long a car may have to wait there, and how often a setpoint may move for no reason, a box and hour.

    ``moves`` None: wallboxes take turns there, which is a reason that the judge does not know.
    """

    day: Day
    longest_wait_s: float
    moves: float | None = 2.0
    hours: float = 24.0
    """No more of it is played: thirty boxes take their time."""


def _plain() -> Planned:
    return Planned(home(3, 1), 300)


def _three() -> Planned:
    silent = ((4000.0, 4300.0), (66_000.0, 66_300.0))
    return Planned(home(7, 3, 35.0, (QUICK,), meter_silent=silent), 1800)


def _slow() -> Planned:
    return Planned(home(9, 3, 35.0, (SLOW,)), 1800)


def _lossy() -> Planned:
    return Planned(home(6, 3, 35.0, (DEAF, QUICK, GONE)), 1800)


def _unseen() -> Planned:
    return Planned(home(2, 3, 35.0, (QUICK, SLOW, UNSEEN)), 1800)


def _blind() -> Planned:
    """A car that takes 11 A of whatever it is offered, beside an instant water heater, and nobody measures it."""
    return Planned(home(5, 1, 25.0, (UNSEEN,), cars=(Car(3, 11.0),)), 1800)


def _battery() -> Planned:
    return Planned(home(4, 3, 50.0, (QUICK, SLOW), battery=True), 1800)


def _steps() -> Planned:
    """AVAIL goes up and down, for two minutes every few seconds, and the lines must stay in balance."""
    at = ((1, 50), (2, 100), (5, 30), (6, 60), (17, 40), (19, 70), (20, 100))
    series = [Command(18.2 * HOUR + 7 * n, {"AVAIL": (100, 60, 30, 80)[n % 4]}) for n in range(41)]
    commands = [*(Command(hour * HOUR, {"AVAIL": avail}) for hour, avail in at), *series]
    return Planned(home(8, 3, 35.0, (QUICK,), max_imbalance_a=20.0, commands=commands), 3 * HOUR)


def _control() -> Planned:
    """4.2 kW by order of the grid operator (§ 14a EnWG), for an hour each, and a gradual return."""
    orders = [Command(hour * HOUR, {"PLIM": 4200.0}, ttl_s=3600) for hour in (2.0, 17.5, 19.2)]
    return Planned(home(1, 3, 63.0, (QUICK,), commands=orders, control=True, return_ramp_s=120.0), 2 * HOUR, moves=None)


def _park() -> Planned:
    """Twelve cars, room for four: they take turns of 15 minutes."""
    return Planned(park(12, fuse_a=32.0), 2 * 900 + 300, moves=None)


def _feeders() -> Planned:
    """Ten boxes behind two feeders with meters of their own."""
    return Planned(park(10, fuse_a=63.0, feeders=2, feeder_a=32.0, priorities=True), 4 * 900, moves=None)


def _large() -> Planned:
    return Planned(park(30, fuse_a=125.0, feeders=3, feeder_a=50.0), 3 * 900, moves=None, hours=3.0)


DAYS: Sequence[Callable[[], Planned]] = (
    _plain,
    _three,
    _slow,
    _lossy,
    _unseen,
    _blind,
    _battery,
    _steps,
    _control,
    _park,
    _feeders,
    _large,
)


def turns_after_a_step(number: int) -> int:
    """How often a setpoint turns round when something big is switched on in a house, for two minutes."""
    load = household(number)
    base = [load[line][9 * 3600] for line in range(3)]
    flow = flat(*base)
    lines, amperes = ((0,), (1,), (2,), (0, 1), (0, 1, 2))[number % 5], (9.0, 15.0)[number // 5]
    for line in lines:
        changed = array("f", flow[line])
        changed[300:420] = array("f", [base[line] + amperes] * 120)
        flow = [*flow[:line], changed, *flow[line + 1 :]]
    day = home(number, 2, 35.0, load=flow, cars=(Car(), Car(1, 32.0)), visits=[Visit("E1", 5), Visit("E2", 9)])
    world = World(day).play(300)
    most = 0
    for end in (420, 560):
        before = dict(world.hunt.turned)
        world.play(end)
        # Up and down again is one turn at each step, and no fault.
        most = max([most, *(turns - before.get(box, 0) for box, turns in world.hunt.turned.items())])
    return most
