from __future__ import annotations

from collections.abc import Sequence

import pytest

from bridge.errors import Nonsense
from bridge.modbus.cells import cells
from bridge.modbus.codec import decode
from bridge.modbus.readings import readings
from bridge.modbus.sunspec import Model, locate, scan, table
from tests.modbus.house import profile

METER = """
vendor: Test
model: Meter
kind: meter
points:
  power_w: {sunspec: {model: [203, 213], point: W}, scale: -1}
  serial: {sunspec: {model: [1], point: SN}, poll: once}
  soc_pct: {sunspec: {model: [802], point: SoC}}
"""


def device(base: int, *models: tuple[int, int]) -> dict[int, int]:
    """Registers of a device: the marker and the chain of (id, length)."""
    registers = {base: 0x5375, base + 1: 0x6E53}
    here = base + 2
    for number, length in models:
        registers |= {here: number, here + 1: length}
        here += 2 + length
    return {**registers, here: 0xFFFF, here + 1: 0}


def walk(registers: dict[int, int]) -> tuple[Model, ...]:
    questions = scan()
    answer: Sequence[int] | None = None
    try:
        question = next(questions)
        while True:
            places = range(question[0], question[0] + question[1])
            answer = [registers[p] for p in places] if set(places) <= set(registers) else None
            question = questions.send(answer)
    except StopIteration as end:
        found: tuple[Model, ...] = end.value
        return found


@pytest.mark.parametrize("base", [40000, 50000, 0])
def test_the_models_are_found_wherever_the_marker_is(base: int) -> None:
    models = walk(device(base, (1, 66), (203, 105)))
    assert models == (Model(1, base + 2, 66), Model(203, base + 70, 105))


def test_a_device_without_marker_is_none() -> None:
    with pytest.raises(Nonsense):
        walk({40000: 1, 40001: 2})


def test_a_chain_without_end_ends() -> None:
    class Always(dict[int, int]):
        def __missing__(self, key: int) -> int:
            return 0 if key % 2 else 5

    endless = Always({40000: 0x5375, 40001: 0x6E53} | dict.fromkeys(range(40002, 65536), 1))
    assert len(walk(endless)) <= 100


def test_where_a_point_lies() -> None:
    models = (Model(1, 40002, 66), Model(203, 40070, 105), Model(203, 40177, 105), Model(213, 40284, 124))
    place = locate(models, [203], "W")
    assert place is not None
    assert (place.address, place.width, place.type, place.exponent) == (40070 + 18, 1, "i16", 40070 + 22)
    second = locate(models, [203], "W", 1)
    assert second is not None
    assert second.address == 40177 + 18
    floating = locate(models, [213], "W")
    assert floating is not None
    assert (floating.width, floating.type, floating.exponent) == (2, "f32", None)
    assert locate(models, [203], "W", 2) is None
    assert locate(models, [103], "W") is None
    assert locate((Model(203, 40070, 10),), [203], "W") is None


def test_a_scale_factor_counts_and_is_needed() -> None:
    shape = profile(METER)
    found = cells(shape, 1, (Model(1, 40002, 66), Model(203, 40070, 105)))
    assert "soc_pct" not in found
    raw = {"power_w": decode(found["power_w"], [123]), "power_w.exponent": decode(found["power_w.exponent"], [1])}
    assert readings(shape, found, raw)["power_w"] == -1230.0  # type: ignore[arg-type]
    missing = decode(found["power_w.exponent"], [0x8000])
    assert missing is None
    assert "power_w" not in readings(shape, found, {"power_w": 123.0})
    assert decode(found["power_w"], [0x8000]) is None


def test_the_table_is_whole() -> None:
    """Every scale factor a point names is a point of the same model; nothing lies on a model's head."""
    for (model, _), row in table().items():
        assert row.offset >= 2
        assert not row.scale_factor or (model, row.scale_factor) in table()
    assert {model for model, _ in table()} >= {1, 101, 102, 103, 111, 112, 113, 120, 121, 122, 123, 124, 201, 214, 802}
