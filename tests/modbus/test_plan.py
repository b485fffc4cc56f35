from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from bridge.modbus import load
from bridge.modbus.cells import Cell
from bridge.modbus.plan import Block, plan, split, sweep_s


@st.composite
def many_cells(draw: st.DrawFn) -> list[Cell]:
    places = st.tuples(
        st.integers(0, 60), st.sampled_from([1, 2, 4, 10]), st.sampled_from([1, 2]), st.sampled_from([3, 4, None])
    )
    return [
        Cell(f"c{index}", unit, address, width, read=function)
        for index, (address, width, unit, function) in enumerate(draw(st.lists(places, max_size=25)))
    ]


def names(blocks: list[Block] | tuple[Block, ...]) -> Counter[str]:
    return Counter(cell.name for block in blocks for cell in block.cells)


def covered(block: Block) -> set[int]:
    return {place for cell in block.cells for place in range(cell.address, cell.address + cell.width)}


@given(many_cells(), st.integers(1, 40), st.booleans())
def test_a_plan_is_complete_and_legal(cells: list[Cell], max_block: int, allow_gaps: bool) -> None:
    blocks = plan(cells, max_block, allow_gaps)
    assert names(blocks) == Counter(cell.name for cell in cells if cell.read is not None)
    for block in blocks:
        asked = set(range(block.address, block.address + block.width))
        assert covered(block) <= asked
        assert {(cell.unit, cell.read) for cell in block.cells} == {(block.unit, block.function)}
        assert block.width <= max_block or len(block.cells) == 1 or block.width == max(c.width for c in block.cells)
        assert allow_gaps or covered(block) == asked


@given(many_cells(), st.integers(1, 40), st.booleans())
def test_splitting_loses_nothing_and_ends(cells: list[Cell], max_block: int, allow_gaps: bool) -> None:
    for block in plan(cells, max_block, allow_gaps):
        todo, ends = [block], []
        while todo:
            pieces = split(todo.pop())
            ends += [piece for piece in pieces if len(piece.cells) == 1]
            todo += [piece for piece in pieces if len(piece.cells) > 1]
        assert names(ends) == (names([block]) if len(block.cells) > 1 else Counter())


def test_neighbours_are_read_together_and_gaps_only_when_allowed() -> None:
    cells = [Cell("a", 1, 0), Cell("b", 1, 1, 2), Cell("c", 1, 5)]
    assert [(b.address, b.width) for b in plan(cells, 10, allow_gaps=False)] == [(0, 3), (5, 1)]
    assert [(b.address, b.width) for b in plan(cells, 10, allow_gaps=True)] == [(0, 6)]
    assert [(b.address, b.width) for b in plan(cells, 1, allow_gaps=True)] == [(0, 1), (1, 2), (5, 1)]


def test_a_refused_block_first_loses_its_gaps() -> None:
    (block,) = plan([Cell("a", 1, 0), Cell("b", 1, 1), Cell("c", 1, 9)], 10, allow_gaps=True)
    assert [(b.address, b.width) for b in split(block)] == [(0, 2), (9, 1)]


def test_a_slow_device_takes_its_time() -> None:
    """KEBA answers each value by itself, and wants half a second between two questions."""
    assert sweep_s(load.load("keba-p30")) >= 6 * 0.5
    assert sweep_s(load.load("alfen-eve")) == 0.0
