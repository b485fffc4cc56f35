"""Overdraft: the house draws more than its limit although everybody keeps to what was reckoned.

Something draws that nobody knows of, or a meter or car is not as exact as it should be. The wallboxes then get that
much less for five minutes, because whatever it was is likely to come again.
"""

from __future__ import annotations

from dataclasses import replace

from bridge.core.config import Config
from bridge.core.decision import GridDecision
from bridge.core.loads.otherload import metered, other_load
from bridge.core.model import Now, Overdraft, PerLine, State
from bridge.core.tree import HOUSE, LINES, tree

CUT_S = 300.0
"""For so long after an excess the wallboxes get less."""
LASTING_S = 12.0
"""An excess counts when it lasts so long under limits that did not fall: a meter reading, a slow box that is written,
and the five seconds that a car may take (IEC 61851-1, Annex A) are over then."""
MARGIN_A = 0.5
"""Meters and cars are not exact."""

_NOTHING: PerLine = (0.0, 0.0, 0.0)


def watched(known: Overdraft, over: PerLine | None, level: tuple[float, float], now: Now) -> Overdraft:
    """What is known after a round.

    ``over`` are the amperes per line beyond the limit that the wallboxes could give back (None: no fresh reading),
    ``level`` the limits they were measured against: lower ones begin a new count.
    """
    if level != known.level:
        fell = any(limit < before for limit, before in zip(level, known.level, strict=True))
        known = replace(known, level=level, since=None if fell else known.since)
    if over is None:
        return known
    if max(over) <= MARGIN_A:
        return known if known.since is None else replace(known, since=None)
    if known.since is None:
        return replace(known, since=now.mono)
    if now.mono - known.since < LASTING_S:
        return known
    # What is cut already has had its effect: this comes on top.
    before = known.cut if now.mono < known.until else _NOTHING
    cut = (before[0] + max(0.0, over[0]), before[1] + max(0.0, over[1]), before[2] + max(0.0, over[2]))
    return replace(known, cut=cut, until=now.mono + CUT_S, since=now.mono)


def added(known: Overdraft, load: PerLine, now: Now) -> PerLine:
    """The other load of the house, with what has to be kept free for an excess seen lately."""
    if now.mono >= known.until:
        return load
    return load[0] + known.cut[0], load[1] + known.cut[1], load[2] + known.cut[2]


def excess(config: Config, state: State, grid: GridDecision) -> PerLine | None:
    """The amperes on each line that are drawn beyond the limit and that the wallboxes could give back.

    None without a fresh reading. What the house draws by itself is known and reckoned with; it is no overdraft.
    """
    drawn = metered(config, state, tree(config).places[HOUSE]) if grid.power_w is not None else None
    if drawn is None:
        return None
    other = other_load(state.load(HOUSE))
    line_a, total_a = level(config, grid)
    too_much = (sum(drawn) - total_a) / len(LINES)
    over = [min(max(line - line_a, too_much), line - known) for line, known in zip(drawn, other, strict=True)]
    return over[0], over[1], over[2]


def level(config: Config, grid: GridDecision) -> tuple[float, float]:
    """The limits in force at the house connection, in amperes: on each line, and on all lines together."""
    total_a = grid.limit_w / config.grid.voltage
    return (total_a / len(LINES) if grid.limit_a is None else grid.limit_a), total_a
