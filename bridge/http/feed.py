"""What devices of the profile ``http-input`` tell: ``set_ajax_meter`` and ``set_ajax_evse``.

The names and units of the fields are the vendor's (V, mA, W, Wh); lists come as JSON or, in a query, parted by commas.
Fields nobody knows are left alone. All but :class:`Feeder` is pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeVar

from bridge.core.config import Config, MeterConfig, WallboxConfig
from bridge.core.events import Confirmed, Event, Read, Reading
from bridge.core.formulas import fold
from bridge.core.loads import inputs
from bridge.core.model import Snapshot
from bridge.http.access import Refusal

Fields = Mapping[str, object]
"""The body of a POST or the query of a GET."""

D = TypeVar("D", MeterConfig, WallboxConfig)

_NUMBERS = (
    ("power_va", "power_w"),
    ("power_w", "power_w"),
    ("import_vah", "import_wh"),
    ("import_wh", "import_wh"),
    ("export_vah", "export_wh"),
    ("export_wh", "export_wh"),
    ("soc", "soc_pct"),
    ("total_energy", "energy_wh"),
)
"""Field to quantity. Of two spellings the later one counts; apparent power is never below the real one."""

_LISTS = (("voltage", "voltage_l{}_v", 1.0), ("current", "current_l{}_a", 1000.0))
"""Field, quantity of each line, and how much of the field's unit one of ours is."""


@dataclass(frozen=True, slots=True)
class Fed:
    """What was told of one device. ``steered``: it is a wallbox, and the answer tells it what to do."""

    device: str
    values: Mapping[str, Reading]
    steered: bool = False


def meter(config: Config, id: str, fields: Fields) -> Fed:
    """What ``set_ajax_meter`` tells; raises :class:`Refusal`."""
    device = _device(config, id, MeterConfig)
    values = dict(_measured(fields))
    if device.role == "grid" and "power_w" not in values and not values.keys() >= inputs.CURRENTS:
        # Else an old reading, or none at all, would pass for what the house draws now.
        raise Refusal(400, "a meter of the role grid must tell power_w, or the current of each line, every time")
    return Fed(device.id, values)


def wallbox(config: Config, id: str, fields: Fields) -> Fed:
    """What ``set_ajax_evse`` tells; raises :class:`Refusal`."""
    device = _device(config, id, WallboxConfig)
    values = dict(_measured(fields))
    if "state" in fields:
        values["state"] = _checked("state", inputs.letter, fields["state"])
    if "max_charging_current" in fields:
        values["hardware_max_a"] = _checked("max_charging_current", inputs.number, fields["max_charging_current"]) / 1e3
    return Fed(device.id, values, steered=True)


def orders(current_a: float) -> Mapping[str, object]:
    """What a wallbox is answered and must carry out: ``current_a`` amperes per line, 0 is a pause."""
    on = current_a > 0
    milliamperes = int(current_a * 1000 + 0.001)
    return {"device_enabled": True, "charging_enabled": on, "paused": not on, "charging_current": milliamperes}


def _device(config: Config, id: str, kind: type[D]) -> D:
    there = [device.id for device in config.inputs if isinstance(device, kind) and device.fed_by == "http"]
    device = config.by_key.get(fold(id))
    if isinstance(device, kind) and device.fed_by == "http":
        return device
    raise Refusal(404, f"dev_id {id[:40]!r} has not the profile http-input; there are {', '.join(there) or 'none'}")


def _measured(fields: Fields) -> Iterator[tuple[str, Reading]]:
    for field, quantity in _NUMBERS:
        if field in fields:
            yield quantity, _checked(field, inputs.number, fields[field])
    for field, quantity, per_unit in _LISTS:
        for line, value in enumerate(_listed(field, fields.get(field, ())), 1):
            yield quantity.format(f"{line}"), _checked(f"{field}[{line - 1}]", inputs.number, value) / per_unit
    for field in ("model", "rfid"):
        if text := fields.get(field):
            yield field, str(text)[:100]


def _listed(field: str, value: object) -> list[object]:
    found: list[object] = list(value.split(",")) if isinstance(value, str) else []
    if isinstance(value, list | tuple):
        found = list(value)
    elif not isinstance(value, str):
        raise Refusal(400, f"{field} is a list of the values of L1, L2 and L3")
    if len(found) > 3:
        raise Refusal(400, f"{field} has {len(found)} values, but there are only L1, L2 and L3")
    return found


R = TypeVar("R", str, float)


def _checked(field: str, understand: Callable[[object], R], value: object) -> R:
    try:
        return understand(value)
    except ValueError as error:
        raise Refusal(400, f"{field}: {error}") from None


class Hub(Protocol):
    """What is needed of the hub."""

    @property
    def snapshot(self) -> Snapshot:
        """The newest snapshot."""

    def post(self, event: Event, /) -> None:
        """Tell what happened; never blocks."""

    def ask(self, event: Event, /) -> Snapshot:
        """Tell what happened and wait for the snapshot in which it is in force; TimeoutError when there is none."""


class Feeder:
    """Hands on what was told, and answers wallboxes what to do. ``clock`` is the hub's monotonic clock."""

    def __init__(self, hub: Hub, clock: Callable[[], float]) -> None:
        self._hub = hub
        self._clock = clock
        self._answered: dict[str, tuple[float, int]] = {}
        """What each wallbox was answered last: amperes, and the revision they come from."""

    def take(self, fed: Fed) -> object:
        """The answer to ``fed``.

        A wallbox holds what it was answered, but an answer may get lost. So it counts as confirmed when the box,
        not having been away, calls again; the answer to that call repeats or lowers it at once.
        """
        read = Read(fed.device, fed.values, self._clock())
        online = self._hub.snapshot.state.device(fed.device).online
        if not fed.steered:
            self._hub.post(read)
            return "ok"
        if online and (before := self._answered.get(fed.device)):
            self._hub.post(Confirmed(fed.device, *before))
        try:
            snapshot = self._hub.ask(read)
        except TimeoutError as error:
            raise Refusal(503, f"not accepted: {error}") from None
        current_a = snapshot.decision.setpoints[fed.device].current_a
        self._answered[fed.device] = current_a, snapshot.revision
        return orders(current_a)
