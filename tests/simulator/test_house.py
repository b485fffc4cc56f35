"""The house has a load that is plausible, varies, and comes back the same for the same seed."""

from bridge.simulator.house import DAY_S, House

STEP_S = 10.0


def day(seed: int) -> list[tuple[float, float, float]]:
    house = House(seed)
    loads = []
    for _ in range(int(DAY_S / STEP_S)):
        house.step(STEP_S)
        loads.append(house.power_w)
    return loads


def test_the_same_seed_gives_the_same_day() -> None:
    assert day(7) == day(7)
    assert day(7) != day(8)


def test_a_day_is_that_of_a_household() -> None:
    for seed in range(3):
        loads = day(seed)
        assert all(50.0 < line < 7000.0 for load in loads for line in load)
        kwh = sum(sum(load) for load in loads) * STEP_S / 3.6e6
        assert 10.0 < kwh < 70.0
        assert len({tuple(round(line, -2) for line in load) for load in loads}) > 20  # appliances switch


def test_nights_are_quieter_than_days() -> None:
    loads = [sum(load) for seed in range(3) for load in day(seed)]
    per_day = int(DAY_S / STEP_S)
    night = [w for i, w in enumerate(loads) if 2 <= (i % per_day) * STEP_S / 3600 < 6]
    noon = [w for i, w in enumerate(loads) if 11 <= (i % per_day) * STEP_S / 3600 < 20]
    assert sum(night) / len(night) < sum(noon) / len(noon)
