"""The car keeps to the physics the demo promises, whatever it is offered."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.simulator.car import EFFICIENCY, MIN_A, MODELS, Car, Model

DT_S = 0.1
VOLTS = (231.0, 229.0, 230.0)

cars = st.builds(Car.drawn, st.sampled_from(MODELS), st.integers().map(Random))
offers = st.lists(
    st.tuples(st.sampled_from([0.0, 5.9, 6.0, 9.9, 16.0, 32.0]), st.integers(1, 120)), min_size=1, max_size=12
).map(lambda parts: [amps for amps, steps in parts for _ in range(steps)])


def run(car: Car, offered: list[float]) -> tuple[list[float], list[float]]:
    """Current after, and energy of, each step."""
    amps, energies = [], []
    for offer in offered:
        energies.append(car.step(DT_S, offer, VOLTS))
        amps.append(car.current_a)
    return amps, energies


@given(cars, offers)
def test_never_draws_more_than_was_offered_within_its_reaction_time(car: Car, offered: list[float]) -> None:
    car.plug()
    amps, _ = run(car, offered)
    memory = int(car.reaction_s / DT_S) + 2
    for step, current_a in enumerate(amps):
        recent = max(offered[max(0, step - memory) : step + 1])
        assert current_a <= min(recent, car.model.max_a)
        assert current_a == 0.0 or recent >= MIN_A


@given(cars, offers)
def test_ramps_up_slowly(car: Car, offered: list[float]) -> None:
    car.plug()
    amps, _ = run(car, offered)
    rises = [after - before for before, after in zip([0.0, *amps], amps, strict=False)]
    assert max(rises) <= 2.0 * DT_S + 1e-9


@given(cars, st.sampled_from([6.0, 9.9, 16.0, 32.0]))
def test_settles_at_what_is_offered(car: Car, offer: float) -> None:
    car.plug()
    run(car, [offer] * 400)
    assert car.current_a == min(offer, car.model.max_a)
    assert car.state == "C"


@given(cars)
def test_pauses_below_six_amperes_after_its_reaction_time(car: Car) -> None:
    car.plug()
    run(car, [16.0] * 300)
    amps, _ = run(car, [5.9] * 60)
    waited = amps.index(0.0) * DT_S
    assert 2.0 - 2 * DT_S <= waited <= 5.0 + 2 * DT_S
    assert car.state == "B"


@given(cars, offers)
def test_what_it_takes_is_what_it_stores(car: Car, offered: list[float]) -> None:
    car.plug()
    _, energies = run(car, offered)
    assert car.stored_wh == pytest.approx(car.arrival_wh + EFFICIENCY * sum(energies))


@given(st.sampled_from(MODELS), st.floats(0.0, 30.0))
def test_stops_when_full_and_stays_so_until_the_next_visit(model: Model, room_wh: float) -> None:
    car = Car.drawn(model, Random(0))
    car.arrival_wh = model.battery_wh - room_wh
    car.plug()
    for _ in range(1500):
        if car.full:
            break
        car.step(DT_S, 32.0, VOLTS)
    assert (car.full, car.state) == (True, "B")
    assert model.battery_wh - 3.0 < car.stored_wh <= model.battery_wh
    assert run(car, [32.0] * 100 + [0.0] * 100 + [32.0] * 100)[1] == [0.0] * 300  # a new offer does not wake it
    car.unplug()
    car.plug()
    assert not car.full


def test_comes_and_leaves_on_its_schedule() -> None:
    car = Car.drawn(MODELS[0], Random(3))
    seen = []
    for _ in range(11 * 3600):
        car.step(1.0, 16.0, VOLTS)
        if not seen or seen[-1] != car.plugged:
            seen.append(car.plugged)
    assert seen == [False, True, False, True]


def test_the_first_visit_begins_within_seconds() -> None:
    for seed in range(50):
        assert Car.drawn(MODELS[0], Random(seed)).change_s < 10.0


def test_unplugging_stops_at_once() -> None:
    car = Car.drawn(MODELS[0], Random(1))
    car.plug()
    run(car, [16.0] * 300)
    car.unplug()
    assert (car.state, car.current_a) == ("A", 0.0)
    assert run(car, [16.0] * 10)[1] == [0.0] * 10


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("lines", [1, 3])
def test_uses_its_own_phases_and_no_more_than_the_wallbox_has(model: Model, lines: int) -> None:
    car = Car.drawn(model, Random(1))
    car.plug()
    run(car, [16.0] * 300)
    taken_wh = car.step(3600.0, 16.0, [230.0] * lines)
    assert taken_wh == pytest.approx(16.0 * 230.0 * min(model.phases, lines))
