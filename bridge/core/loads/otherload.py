"""What is drawn at a place beside its wallboxes, worked out from meters and wallboxes read at different moments.

Other load = meter − wallboxes; below 0 while the house feeds in. Taken naively, a car that starts between two readings
looks like a toaster of 16 A, and the car would be paused for it. So each reading of the meter counts twice:

* at once, less all that the wallboxes may be drawing at most: whatever is above that is other load for certain;
* once every wallbox has been read after it, less what they drew. A reading around which a car changed its current says
  nothing for certain: what was known before holds on, for a while.

The highest result of the last seconds holds (:data:`WINDOW_S`): a rise counts at once, a fall when it has lasted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import product

from bridge.core.config import Config, WallboxConfig
from bridge.core.events import Read, Values
from bridge.core.loads.phases import as_switched
from bridge.core.model import FOLLOWING_S, OBEYING_S, Device, Load, PerLine, State
from bridge.core.tree import Place, tree

WINDOW_S = 4.0

_LINES = (1, 2, 3)
_OWN_LINES = tuple((f"current_l{line}_a", f"power_l{line}_w") for line in _LINES)
"""What a device calls current and power of each of its own lines."""
_NOTHING: PerLine = (0.0, 0.0, 0.0)
_PATIENCE_S = 15.0
"""A meter reading that some wallbox has not answered after so long is given up for a newer one."""
_LAG_S = 1.0
"""Meters work out their values about once a second: what they show may be that old."""
_DUST_A = 0.05
"""Meters round."""
_STEADY_A = 1.0
"""Wallboxes that changed by less than this, all together, held still."""
_TELLING_A = 5.0
"""Cars that changed their current by so much, all lines together, show whether a meter counts the right way."""
_ALIKE = 0.3
"""By so much of it the meter may differ: the house goes on meanwhile."""
_PROOFS = 3
"""After so many changes to which it answered the wrong way, and none to which it did not, there is no doubt."""
_UNSTEADY_S = 12.0
"""After so long with cars in motion the reading that leaves least for them counts."""
_MISFIT_A = 1.0
_MISFIT = 0.05
"""So much, and so much of all currents, a total power may differ from what the currents of the lines make of it."""
_BELIEVABLE_A = 2000.0
"""No line of a house carries more: a meter that tells so is read wrongly."""
_SWEEPS = 3
"""A car in motion shows in so many readings of a wallbox: before, while, after."""


def other_load(load: Load) -> PerLine:
    """The other load at a place in amperes per line. Feed-in (below 0) only where wallboxes were read along with it."""
    # What was told last holds until something newer is told, however long that takes.
    seen = [load.told or _NOTHING, *(drawn for _, drawn in load.recent)]
    return max(line[0] for line in seen), max(line[1] for line in seen), max(line[2] for line in seen)


def observed(config: Config, state: State, event: Read) -> Mapping[int, Load]:
    """The loads by number of their place, with what a new reading of any device tells about them."""
    loads: dict[int, Load] | None = None
    for number, place in enumerate(tree(config).places):
        if place.meters:
            before = state.load(number)
            after = _observed(config, state, event, place, before)
            if after is not before:
                loads = loads or dict(state.loads)
                loads[number] = after
    return state.loads if loads is None else loads


def moved(before: Config, after: Config, state: State) -> Mapping[int, Load]:
    """The loads by number of their place once another configuration is in force.

    A place keeps what was seen of it while its meters and wallboxes are the same, whatever its number is now. Of all
    others their meters tell what they show already: else a load would be unknown, or another place's, for a while.
    """
    known = {_identity(before, place): state.load(number) for number, place in enumerate(tree(before).places)}
    loads: dict[int, Load] = {}
    for number, place in enumerate(tree(after).places):
        if place.meters and (load := known.get(_identity(after, place))):
            loads[number] = load
        for meter in place.meters if number not in loads else ():
            reading = state.device(meter)
            load = _observed(after, state, Read(meter, reading.values, reading.mono), place, loads.get(number, Load()))
            loads[number] = load
    return loads


def _identity(config: Config, place: Place) -> object:
    """What makes a place the one it is for its other load."""
    return place.meters, frozenset((box.id, box.lines) for box in config.wallboxes if box.id in place.boxes)


def _observed(config: Config, state: State, event: Read, place: Place, load: Load) -> Load:
    if event.device in place.meters:
        drawn = metered(config, state, place)
        if drawn is None:
            return load
        boxes = [as_switched(state, box) for box in config.wallboxes if box.id in place.boxes]
        load = _noted(load, event.mono, _less(drawn, (_most(box, state, event.mono) for box in boxes)))
        seen = [_seen(config, box, state, event.mono) for box in boxes]
        likely = _less(drawn, (high for _, high in seen))
        load = load._replace(drawn=drawn, likely=likely, most=_less(drawn, (low for low, _ in seen)))
        if load.sample is None or event.mono - load.sample[0] > _PATIENCE_S:
            load = load._replace(sample=(event.mono, drawn))
    elif load.sample is None or event.device not in place.boxes:
        return load
    if load.sample is None:
        return load
    since, drawn = load.sample
    if any(known.online and known.mono < since for known in map(state.device, place.boxes)):
        return load
    online = [as_switched(state, box) for box in config.wallboxes if box.id in place.boxes and _online(state, box)]
    around = {box.id: _around(config, box, state, since) for box in online}
    measured = [one for one in around.values() if one]
    blind = [_blindly(box, state, since - _LAG_S) for box in online if not around[box.id]]
    highest = _less(drawn, (low for low, _ in (*measured, *blind)))
    lowest = _less(drawn, (high for _, high in (*measured, *blind)))
    load = load._replace(sample=None)
    if any(high - low > _STEADY_A for high, low in zip(highest, lowest, strict=True)):
        slowest_s = max(box.sweep_s for box in online)
        if load.told and event.mono - load.steady_mono < _UNSTEADY_S + _SWEEPS * slowest_s:
            # It holds on; but more than the cars were seen to draw at most is not theirs.
            return _noted(load, event.mono, higher(other_load(load), lowest))
        return _noted(load._replace(told=highest), event.mono, highest)
    load = _compared(load, sum(drawn), sum(sum(high) for _, high in measured))
    told = _kept(load.told, lowest, highest)
    return _noted(load._replace(told=told, steady_mono=event.mono), event.mono, told)


def _kept(told: PerLine | None, lowest: PerLine, highest: PerLine) -> PerLine:
    """What was told before, where nothing speaks against it: else cars would follow their own shadow for ever."""
    if told is None:
        return highest
    one, two, three = (
        before if low - _DUST_A <= before <= high + _DUST_A else high
        for before, low, high in zip(told, lowest, highest, strict=True)
    )
    return one, two, three


def _compared(load: Load, grid_a: float, boxes_a: float) -> Load:
    """Whether the meter rises when cars draw more, judged by the last two readings in which all held still."""
    if load.steady is not None:
        change, answer = boxes_a - load.steady[1], grid_a - load.steady[0]
        if abs(change) >= _TELLING_A and abs(answer - change) < _ALIKE * abs(change):
            load = load._replace(against=0)
        elif abs(change) >= _TELLING_A and abs(answer + change) < _ALIKE * abs(change):
            load = load._replace(against=load.against + 1)
    return load._replace(steady=(grid_a, boxes_a))


def is_reversed(load: Load) -> bool:
    """Whether the meter of a place counts the wrong way: it fell each time cars drew more."""
    return load.against >= _PROOFS


def is_blind(box: WallboxConfig, device: Device) -> bool:
    """Whether a wallbox measures nothing: neither currents nor power (:func:`bridge.core.tree.uses`)."""
    return line_currents(device.values, box.lines, 1.0) is None


def _charges(state: State, box: WallboxConfig) -> bool:
    return state.devices[box.id].values.get("state") == "C"


def _online(state: State, box: WallboxConfig) -> bool:
    return state.device(box.id).online


def _noted(load: Load, mono: float, drawn: PerLine) -> Load:
    recent = (entry for entry in load.recent if entry[0] > mono - WINDOW_S)
    return load._replace(recent=(*recent, (mono, drawn)))


def _less(drawn: PerLine, boxes: Iterable[PerLine]) -> PerLine:
    one, two, three = drawn
    for box in boxes:
        one, two, three = one - box[0], two - box[1], three - box[2]
    return one, two, three


def metered(config: Config, state: State, place: Place) -> PerLine | None:
    """What all meters of a place show together, in amperes per line; None while one of them tells nothing, or what
    cannot be true."""
    total = [0.0, 0.0, 0.0]
    for meter in place.meters:
        values = state.device(meter).values
        lines = line_currents(values, _LINES, config.grid.voltage, signed=True)
        if lines is None or not _believable(lines):
            return None
        total = [a + b for a, b in zip(total, lines, strict=True)]
    return total[0], total[1], total[2]


def _most(box: WallboxConfig, state: State, mono: float) -> PerLine:
    """The most a wallbox may be drawing; an unreachable one is booked elsewhere and counts as the house's."""
    if not _online(state, box):
        return _NOTHING
    ceiling = state.offer(box.id).lately_a(mono)
    return _on_lines(box.lines, box.capability.max_a if ceiling is None else ceiling)


def _seen(config: Config, box: WallboxConfig, state: State, mono: float) -> tuple[PerLine, PerLine]:
    """What a wallbox may draw at least by what is known of it now, and what of a draw beyond the limit may be its.

    An unreachable one counts as other load.
    """
    if not _online(state, box):
        return _NOTHING, _NOTHING
    if around := _around(config, box, state, mono):
        least, most = around
        offer = state.offer(box.id)
        if offer.ceiling_a is not None and state.device(box.id).mono < offer.lowered[0] + OBEYING_S:
            # It was told to come down, and may have obeyed since it was read: how far, only the next reading tells.
            least = _NOTHING
        return least, most
    # Where more is drawn than may be, it must not be thought that it is this one: its car may draw less already.
    return _blindly(box, state, mono - _LAG_S)[0], _NOTHING


def _blindly(box: WallboxConfig, state: State, mono: float) -> tuple[PerLine, PerLine]:
    """The least and the most that a wallbox is taken to draw that measures nothing, while its car is ready to charge.

    It is all that it is offered, once the car had time to follow: see :func:`bridge.core.tree.uses`.
    """
    if not _charges(state, box):
        return _NOTHING, _NOTHING
    offer = state.offer(box.id)
    amperes = box.capability.max_a if offer.ceiling_a is None else offer.ceiling_a
    if mono - offer.raised_mono < FOLLOWING_S:
        amperes = min(amperes, offer.raised_from_a)
    return _on_lines(box.lines, amperes), _most(box, state, mono)


def _around(config: Config, box: WallboxConfig, state: State, since: float) -> tuple[PerLine, PerLine] | None:
    """The least and the most a wallbox drew around a meter reading; None: it measures nothing.

    What a meter shows may be as old as :data:`_LAG_S`: the readings of the wallbox from before that to the first one
    after it count. A reading is stamped with the beginning of its poll, and slow wallboxes take seconds for one: only
    when that is over, too, what it says is from before.
    """
    known = state.devices[box.id]
    readings = [(known.mono, known.values), *known.before]
    later = sum(mono >= since for mono, _ in readings)
    least = most = None
    for mono, values in readings[max(0, later - 1) :]:
        if (drawn := line_currents(values, box.lines, config.grid.voltage)) is None:
            break
        least = _lower(least, drawn) if least else drawn
        most = higher(most, drawn) if most else drawn
        if mono + box.sweep_s <= since - _LAG_S:
            break
    return (least, most) if least and most else None


def _lower(one: PerLine, other: PerLine) -> PerLine:
    return min(one[0], other[0]), min(one[1], other[1]), min(one[2], other[2])


def higher(one: PerLine, other: PerLine) -> PerLine:
    """The higher of two currents on each line, in amperes."""
    return max(one[0], other[0]), max(one[1], other[1]), max(one[2], other[2])


def _on_lines(lines: tuple[int, ...], amperes: float) -> PerLine:
    return (amperes if 1 in lines else 0.0, amperes if 2 in lines else 0.0, amperes if 3 in lines else 0.0)


def flows(values: Values) -> bool:
    """Whether the values tell what flows through a meter, and it may be true."""
    lines = line_currents(values, _LINES, 230.0)
    return lines is not None and _believable(lines)


def _believable(lines: PerLine) -> bool:
    return max(map(abs, lines)) <= _BELIEVABLE_A


def line_currents(values: Values, lines: tuple[int, ...], voltage: float, signed: bool = False) -> PerLine | None:
    """A device's line currents on the house lines it sits on, in amperes; None when nothing tells.

    Measured currents are best; else the power spread over the lines. Meters give currents without sign, so with
    ``signed`` the direction is taken from the line's power, else made out from the total power (export is negative).
    """
    found = [0.0, 0.0, 0.0]
    power = values.get("power_w")
    unsigned: list[int] = []
    for (current, line_power), line in zip(_OWN_LINES, lines, strict=False):
        current_a = values.get(current)
        if isinstance(current_a, (int, float)):
            line_w = values.get(line_power) if signed else None
            exporting = isinstance(line_w, (int, float)) and line_w < 0
            found[line - 1] = -abs(current_a) if exporting else abs(current_a)
            if line_w is None:
                unsigned.append(line - 1)
        elif isinstance(power, (int, float)):
            found[line - 1] = power / voltage / len(lines)
        else:
            return None
    if signed and unsigned and isinstance(power, (int, float)) and power < 0:
        for line in _exporting(found, unsigned, power / voltage):
            found[line] = -found[line]
    return found[0], found[1], found[2]


def _exporting(amperes: Sequence[float], unsigned: Sequence[int], total_a: float) -> Sequence[int]:
    """Those of the ``unsigned`` lines (by index) that export for certain, when all lines together are ``total_a``.

    While the sun shines on one line, another may well draw: what could be either way is taken to draw.
    """
    known_a = sum(current for line, current in enumerate(amperes) if line not in unsigned)
    misfits: dict[tuple[int, ...], float] = {}
    for signs in product((1, -1), repeat=len(unsigned)):
        there_a = known_a + sum(sign * amperes[line] for sign, line in zip(signs, unsigned, strict=True))
        misfits[signs] = abs(there_a - total_a)
    # Voltages differ, and currents without power (reactive ones) count in amperes only.
    close = min(misfits.values()) + _MISFIT_A + _MISFIT * sum(map(abs, amperes))
    likely = [signs for signs, misfit in misfits.items() if misfit <= close]
    return [line for number, line in enumerate(unsigned) if all(signs[number] < 0 for signs in likely)]
