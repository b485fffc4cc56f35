"""A meter of its own for a wallbox: what such a meter shows is what the wallbox draws.

Many simple wallboxes measure nothing, and an energy meter sits in front of them (``wallboxes[].meter``). Its readings
become part of the wallbox's own, as old as the older of the two, so that everything that looks at a wallbox sees one
device that measures.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from bridge.core.config import Config, WallboxConfig
from bridge.core.events import Read, Values
from bridge.core.formulas import fold
from bridge.core.model import Device, State

_TAKEN: Mapping[str, str] = {
    "power_w": "power_w",
    "import_wh": "energy_wh",
    **{name: name for line in (1, 2, 3) for name in (f"current_l{line}_a", f"power_l{line}_w", f"voltage_l{line}_v")},
}
"""Quantities of the meter, and what they are called at a wallbox. The meter is wired as the wallbox is: its L1 too."""
_OWN = frozenset(_TAKEN.values())


def measured(config: Config, state: State, event: Read) -> tuple[Device, Read]:
    """What was known of a device, and its new reading: of a wallbox with a meter of its own, with what that shows.

    While the meter is silent, the wallbox is as it says itself, and nothing the meter said before is left of it.
    """
    known = state.device(event.device)
    box = config.by_key.get(fold(event.device))
    if not isinstance(box, WallboxConfig) or box.meter is None:
        return known, event
    known = known._replace(values=_without(known.values))
    meter = state.device(box.meter)
    # Half of the wallbox's own patience: as old as the meter's, its reading must last until the next one.
    if not meter.online or event.mono - meter.mono > box.patience_s / 2:
        return known, event
    shown = {own: meter.values[name] for name, own in _TAKEN.items() if name in meter.values}
    return known, replace(event, values={**_without(event.values), **shown}, mono=min(event.mono, meter.mono))


def _without(values: Values) -> Values:
    return {name: value for name, value in values.items() if name not in _OWN}
