from __future__ import annotations

import pytest

from bridge.modbus.health import Health


def test_a_lonely_unit_is_asked_again_soon_and_with_all_patience() -> None:
    health = Health()
    assert health.silent(1, 100.0)
    assert not health.silent(1, 101.0)
    assert health.silent_until(1) == pytest.approx(101.2)
    assert health.patience_s(1, 1.0, 102.0) == 1.0


def test_a_silent_unit_among_living_ones_is_left_alone_longer_and_longer_and_only_probed() -> None:
    health = Health()
    waits = []
    now = 0.0
    for _ in range(7):
        health.answered(2, 0.01, now)
        health.silent(1, now)
        waits.append(health.silent_until(1) - now)
        now = health.silent_until(1)
    assert waits == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]
    health.answered(2, 0.01, now)
    assert health.patience_s(1, 1.0, now) == 0.2
    assert health.patience_s(2, 1.0, now) == 1.0


def test_a_probe_waits_for_as_long_as_slow_neighbours_need() -> None:
    health = Health()
    health.answered(2, 0.15, 0.0)
    health.silent(1, 0.0)
    assert health.patience_s(1, 1.0, 1.0) == pytest.approx(0.6)
    health.answered(2, 0.9, 1.0)
    assert health.patience_s(1, 1.0, 1.0) == 1.0


def test_who_answers_again_is_forgiven() -> None:
    health = Health()
    health.answered(2, 0.01, 0.0)
    health.silent(1, 0.0)
    assert health.answered(1, 0.01, 5.0)
    assert not health.answered(1, 0.01, 6.0)
    assert health.silent_until(1) < 0
    assert health.patience_s(1, 1.0, 6.0) == 1.0


def test_a_slow_unit_that_failed_once_is_given_its_time_again() -> None:
    health = Health()
    health.answered(1, 0.01, 100.0)
    assert health.patience_s(2, 1.0, 100.0) == 0.8, "first contact: nobody living waits a whole timeout"
    patience = []
    for _ in range(8):
        health.silent(2, 100.0)
        patience.append(health.patience_s(2, 1.0, 100.0))
    assert patience == [0.2, 0.2, 0.2, 0.8, 0.2, 0.2, 0.2, 0.8]
    health.answered(2, 0.6, 100.0)
    assert health.patience_s(2, 1.0, 100.0) == 1.0
