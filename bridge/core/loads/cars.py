"""Cars: what the readings of a wallbox tell about the car there, so that no room is kept free in vain.

Unknown means the worst: a car may draw on every line and all it is offered, until it was seen to do otherwise.
"""

from __future__ import annotations

from bridge.core.config import WallboxConfig
from bridge.core.events import Values
from bridge.core.loads.otherload import higher, line_currents
from bridge.core.loads.phases import FLOWING_A
from bridge.core.model import FOLLOWING_S, Car, Device, Offer

LEARN_S = 20.0
"""A car that charges for so long has shown all the lines it uses (contactors and ramps are done)."""
FULL_A = 3.0
"""Only a car that draws this much on one line tells anything about the others."""
QUIET_S = 60.0
"""A car that could charge and has not for so long gives its share back."""
STARTING_S = 30.0
"""A car that could charge and has not begun to for so long is not just about to."""
SPAN_S = 5.0
"""The highest current of the last one to two of these is what the car uses."""
HEADROOM_A = 1.5
"""A car is offered this much more than it uses, so that it can show that it wants more."""
_HUNGRY_A = 1.0
"""A car that is this close to what it is offered wants more: some always draw a little less."""

WAKING_A = 10.0
"""This much wakes a car up that is ready to charge: some do not start with less than 8 A."""
_RISING_A = 0.3
"""A car that used so much more than in the span before has not found its level yet: some go up by 1 A/s and less."""

_CONNECTED = frozenset("BCD")


def seen(box: WallboxConfig, car: Car | None, device: Device, offer: Offer, voltage: float) -> Car | None:
    """The car after a reading of its wallbox; None: there is none."""
    mono = device.mono
    if device.values.get("state") not in _CONNECTED:
        return None
    car = car or Car(mono)
    drawn = line_currents(device.values, box.lines, voltage)
    if drawn is None:
        # All that such a box tells is whether its car is ready to charge; in state B nothing flows (IEC 61851-1).
        ready = device.values["state"] != "B"
        return car._replace(quiet_since=None, asleep_at=None) if ready else _quiet(box, car, offer, mono)
    highest = max(drawn)
    car = car._replace(peaks=_peaks(car.peaks, mono, highest))
    if highest < FLOWING_A:
        return _quiet(box, car, offer, mono)
    since = car.drawing_since if car.drawing_since is not None else mono
    flowed = higher(car.seen, drawn)
    car = car._replace(seen=flowed, drawing_since=since, quiet_since=None, asleep_at=None)
    measured = "current_l1_a" in device.values
    if measured and mono - since >= LEARN_S and max(flowed) >= FULL_A:
        used = tuple(line for line in box.lines if flowed[line - 1] >= FLOWING_A)
        return car._replace(lines=used)
    if car.lines and any(flowed[line - 1] >= FLOWING_A and line not in car.lines for line in box.lines):
        return car._replace(lines=None)
    return car


def _quiet(box: WallboxConfig, car: Car, offer: Offer, mono: float) -> Car:
    """A car that draws nothing: it forgets its ramp, not its lines."""
    may = (offer.confirmed_a or 0.0) >= box.least_a
    since = (car.quiet_since if car.quiet_since is not None else mono) if may else None
    asleep = mono if since is not None and mono - since >= QUIET_S else car.asleep_at
    return car._replace(seen=(0.0, 0.0, 0.0), drawing_since=None, quiet_since=since, asleep_at=asleep)


def _peaks(peaks: tuple[float, float, float], mono: float, amperes: float) -> tuple[float, float, float]:
    began, highest, before = peaks
    if mono - began < SPAN_S:
        return began, max(highest, amperes), before
    return mono, amperes, highest if mono - began < 3 * SPAN_S else amperes


def used_a(car: Car) -> float:
    """The most the car used on one line in the last seconds, in amperes."""
    return max(car.peaks[1], car.peaks[2])


def wanted_a(car: Car | None, offer: Offer, mono: float) -> float:
    """What the car is likely to use of whatever it is offered, in amperes per line; infinite: all of it.

    One that was asleep first has to show that it is awake.
    """
    if car is None:
        return float("inf")
    if car.drawing_since is None:
        return float("inf") if car.asleep_at is None else WAKING_A
    used = used_a(car)
    # Who did not use what it had will not use more either.
    offered_a = offer.raised_from_a if mono - offer.raised_mono < FOLLOWING_S else offer.confirmed_a or 0.0
    rising = mono - car.drawing_since < FOLLOWING_S or car.peaks[1] > car.peaks[2] + _RISING_A
    if rising or used >= offered_a - _HUNGRY_A:
        return float("inf")
    return used + HEADROOM_A


def may_draw_a(box: WallboxConfig, car: Car | None, device: Device, offer: Offer, voltage: float) -> float:
    """The most a car may draw that was offered more until a moment ago, in amperes per line; infinite: all of that.

    What it draws now, once it is seen to have come down since, or as long as it has settled there: one that begins to
    draw, or was offered more just before, may take that first and obey only then.
    """
    drawn = _highest(box, device.values, voltage)
    if drawn is None or car is None:
        return float("inf")
    if _is_settled(car, device.mono, offer):
        return drawn
    lowered_mono, obeyed_a = offer.lowered[0], offer.ceiling_a or 0.0
    readings = [(device.mono, device.values), *device.before]
    later = sum(mono > lowered_mono for mono, _ in readings)
    # From the last reading before it was told.
    was_above = any((_highest(box, values, voltage) or 0.0) > obeyed_a for _, values in readings[: later + 1])
    return drawn if later and was_above and drawn <= obeyed_a else float("inf")


def _is_settled(car: Car, mono: float, offer: Offer) -> bool:
    """Whether a car has taken what it wants of what it was offered before it was told to come down."""
    if car.drawing_since is None:
        # Once it has been told to pause nobody can see any more that it does not want to.
        slept = car.asleep_at is not None and offer.lowered[0] - car.asleep_at < STARTING_S
        return slept or (car.quiet_since is not None and mono - car.quiet_since >= STARTING_S)
    return mono - max(offer.raised_mono, car.drawing_since) >= FOLLOWING_S


def _highest(box: WallboxConfig, values: Values, voltage: float) -> float | None:
    drawn = line_currents(values, box.lines, voltage)
    return None if drawn is None else max(drawn)


def is_idle(car: Car | None, mono: float, slot_s: float) -> bool:
    """Whether even the minimum is wasted on the car. It is asked anew every ``slot_s``: many wake up by a timer."""
    return car is not None and car.asleep_at is not None and mono - car.asleep_at < slot_s
