"""The read planner: cells to few legal requests.

A request never splits a value, is never longer than the device allows, and asks for registers nobody wants only
where the device permits it.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from typing import NamedTuple

from bridge.modbus.cells import Cell, cells
from bridge.modbus.profile import Profile


class Block(NamedTuple):
    """One read request and the cells it delivers."""

    unit: int
    function: int
    address: int
    width: int
    cells: tuple[Cell, ...]


def plan(cells: Iterable[Cell], max_block: int, allow_gaps: bool) -> tuple[Block, ...]:
    """Requests that deliver every readable cell exactly once.

    ``max_block``: registers in one request; a single value that is wider gets a request of its own.
    """
    ordered = sorted((cell for cell in cells if cell.read is not None), key=_place)
    blocks: list[Block] = []
    for _, neighbours in groupby(ordered, key=lambda cell: (cell.unit, cell.read)):
        blocks += _blocks(list(neighbours), max_block, allow_gaps)
    return tuple(blocks)


def sweep_s(profile: Profile) -> float:
    """How long it takes at least to read a device when slow values are due, too, in seconds: the gaps it wants."""
    at = profile.connection
    wanted = [cell for cell in cells(profile, at.unit).values() if cell.poll != "once"]
    return len(plan(wanted, at.max_block, at.allow_gaps)) * at.repeat * at.gap_ms / 1000


def split(block: Block) -> tuple[Block, ...]:
    """Smaller requests for the same cells, after the device refused the block; empty for a single cell.

    First without the registers in the gaps, then in halves: so a register that does not exist is found quickly.
    """
    if len(block.cells) == 1:
        return ()
    pieces = _blocks(list(block.cells), block.width, allow_gaps=False)
    if len(pieces) > 1:
        return tuple(pieces)
    half = len(block.cells) // 2
    return _block(block.cells[:half]), _block(block.cells[half:])


def _place(cell: Cell) -> tuple[int, int, int, int]:
    return cell.unit, cell.read or 0, cell.address, -cell.width


def _blocks(cells: list[Cell], max_block: int, allow_gaps: bool) -> list[Block]:
    """Blocks of cells that are ordered by address and share unit and function."""
    groups: list[list[Cell]] = []
    end = 0
    for cell in cells:
        last = max(end, cell.address + cell.width)
        near = allow_gaps or cell.address <= end
        if groups and near and last - groups[-1][0].address <= max_block:
            groups[-1].append(cell)
            end = last
        else:
            groups.append([cell])
            end = cell.address + cell.width
    return [_block(tuple(group)) for group in groups]


def _block(cells: tuple[Cell, ...]) -> Block:
    first = cells[0]
    assert first.read is not None
    end = max(cell.address + cell.width for cell in cells)
    return Block(first.unit, first.read, first.address, end - first.address, cells)
