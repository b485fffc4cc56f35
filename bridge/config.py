"""``bridge.yaml`` to :class:`~bridge.core.config.Config`: where it lies, what it may say, what is wrong with it."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from difflib import get_close_matches
from pathlib import Path

from bridge import schema
from bridge.core.config import (
    Config,
    ContactConfig,
    DeviceConfig,
    GridConfig,
    GroupConfig,
    MeterConfig,
    MqttConfig,
    VariableConfig,
    WallboxConfig,
)
from bridge.core.formulas import Formula, fold
from bridge.core.gateway import SmgwConfig
from bridge.core.loads import inputs
from bridge.core.rules import balance
from bridge.core.rules.rule import RuleConfig
from bridge.errors import ConfigError
from bridge.schema import Checks, Leaf

DEFAULT_FILE = Path("/etc/smgw-bridge/bridge.yaml")

PLANNED: Mapping[str, str] = {}
"""Keys of the format whose feature is not there yet: a clear mistake is better than a limit nobody applies."""


def find(given: str | None) -> Path:
    """The file to read: ``given``, else ``$SMGW_BRIDGE_CONFIG``, else the system's."""
    return Path(given or os.environ.get("SMGW_BRIDGE_CONFIG") or DEFAULT_FILE)


def load(path: Path, checks: Checks = lambda leaves: (), text: str | None = None) -> Config:
    """Read a configuration file. Raises :class:`ConfigError` with every mistake, each with line and key.

    ``text`` is what it shall hold, where that is not what it holds.
    """
    try:
        text = path.read_text(encoding="utf-8") if text is None else text
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([f"{path}: cannot be read: {error}"]) from error
    return schema.read(text, str(path), Config, PLANNED, (*_CHECKS, checks))


def _twice(leaves: Sequence[Leaf]) -> Iterable[tuple[Leaf, str]]:
    """Names and addresses that are given twice; upper and lower case make no difference in formulas."""
    ids, addresses = r"(meters|wallboxes|groups)\[\d+\]\.id", r"(meters|wallboxes)\[\d+\]\.proxy|(http|smgw)\.listen"
    for pattern in (ids, addresses, r"variables\.[^.]+|contacts\[\d+\]\.id"):
        seen: dict[str, Leaf] = {}
        for leaf in leaves:
            if isinstance(leaf.value, str) and re.fullmatch(pattern, leaf.path):
                first = seen.setdefault(fold(leaf.value), leaf)
                if first is not leaf:
                    yield leaf, f"{leaf.value} is taken: line {first.line} has it already"


def _far_ends(leaves: Sequence[Leaf]) -> Iterable[tuple[Leaf, str]]:
    """Far ends that nobody could tell apart."""
    smgw = next((leaf.value for leaf in leaves if isinstance(leaf.value, SmgwConfig)), None)
    for leaf in leaves:
        if leaf.path == "smgw.far_ends" and smgw and smgw.far_ends and not (smgw.listen and smgw.tls):
            yield leaf, "they are known by their certificates, so a door with TLS is needed (listen)"


def _untunnelled(leaves: Sequence[Leaf]) -> Iterable[tuple[Leaf, str]]:
    """A broker behind the gateway, and no way through it."""
    smgw = next((leaf.value for leaf in leaves if isinstance(leaf.value, SmgwConfig)), None)
    for leaf in leaves:
        if leaf.path == "mqtt.tunnel" and leaf.value and (smgw is None or smgw.tunnel == "none"):
            yield leaf, "needs smgw.tunnel, the way through the gateway: socks5 or sni"


def _dangling(leaves: Sequence[Leaf]) -> Iterable[tuple[Leaf, str]]:
    """Formulas that name a meter or wallbox that is not there, which no set could ever mend."""
    ids = [str(leaf.value) for leaf in leaves if re.fullmatch(r"(meters|wallboxes)\[\d+\]\.id", leaf.path)]
    known = {"date", "gm", *map(fold, ids)}
    for leaf in leaves:
        if not isinstance(leaf.value, Formula):
            continue
        for name in sorted(leaf.value.names):
            head, dot, _ = name.partition(".")
            if dot and head not in known:
                there = ", ".join(ids) or "no devices"
                yield leaf, f"{leaf.value.text!r} names {name}, but there is no {head}; there are {there}"


_HAS = {
    "modbus": ("address", "unit", "proxy"),
    "http": (),
    "mqtt": ("topics", "setpoint"),
    "expression": ("values",),
    "gpio": ("address", "pins"),
}
"""Which of the keys that say where readings come from and setpoints go to make sense for which devices."""


def _fed(leaves: Sequence[Leaf]) -> Iterable[tuple[Leaf, str]]:
    """Devices that lack what their kind needs, or have what has no meaning for it."""
    places = {leaf.path: leaf for leaf in leaves}
    base = places["mqtt.topic"].value if "mqtt.topic" in places else MqttConfig().topic
    for leaf in leaves:
        if isinstance(leaf.value, DeviceConfig):
            for key, problem in (*_keys(leaf.value), *_unusable(leaf.value), *_topics(leaf.value, f"{base}/")):
                yield places.get(f"{leaf.path}.{key}", leaf), problem


def _keys(device: DeviceConfig) -> Iterator[tuple[str, str]]:
    """Key and problem."""
    for key in dict.fromkeys(key for keys in _HAS.values() for key in keys):
        given = getattr(device, key, None) not in (None, "", {})
        if given and key not in _HAS[device.fed_by]:
            yield key, f"{key} has no meaning with the profile {device.profile}"
        elif not given and key in _HAS[device.fed_by] and key not in ("unit", "proxy") and hasattr(device, key):
            yield "profile", f"{device.profile} needs {key}"


def _unusable(device: DeviceConfig) -> Iterator[tuple[str, str]]:
    if isinstance(device, WallboxConfig):
        if device.fed_by in ("expression", "gpio"):
            yield "profile", f"{device.profile} is a meter; a wallbox must be told its current"
        if device.fed_by == "mqtt" and "state" not in device.topics:
            yield "topics", "a wallbox needs the topic of its state: without a car connected it gets no current"
    elif isinstance(device, MeterConfig) and device.role == "grid" and device.fed_by in ("mqtt", "expression", "gpio"):
        quantities = device.topics.keys() | device.values.keys()
        if "power_w" not in quantities and not quantities >= inputs.CURRENTS:
            yield "profile", "a meter of the role grid needs power_w, or the current of each line"


def _topics(device: DeviceConfig, own: str) -> Iterator[tuple[str, str]]:
    """Topics that would let the bridge listen to itself."""
    listened = [(f"topics.{quantity}", source.topic) for quantity, source in device.topics.items()]
    if isinstance(device, WallboxConfig) and (setpoint := device.setpoint):
        listened.append(("setpoint", setpoint.topic))
        if setpoint.read_back:
            listened.append(("setpoint.read_back", setpoint.read_back.topic))
            if setpoint.read_back.topic == setpoint.topic:
                yield "setpoint", "read_back must be a topic of the box: on this one the bridge would hear itself"
    for key, topic in listened:
        if topic.startswith(own):
            yield key, f"{topic} is one of the bridge's own topics"


def _contacts(leaves: Sequence[Leaf]) -> Iterable[tuple[Leaf, str]]:
    """Contacts that nobody closes."""
    places = {leaf.path: leaf for leaf in leaves}
    for leaf in leaves:
        if isinstance(leaf.value, ContactConfig):
            bare = sorted(name for name in leaf.value.source.names if "." not in name)
            place = places[f"{leaf.path}.source"]
            if bare:
                yield place, f"a contact is read from inputs of devices such as IO1.input1, not from {bare[0]}"
            elif not leaf.value.source.names:
                yield place, "a contact is read from inputs of devices such as IO1.input1"


def _groups(leaves: Sequence[Leaf]) -> Iterable[tuple[Leaf, str]]:
    """Groups and meters of groups that are not there, and groups inside themselves."""
    above = {leaf.value.id: leaf.value.group for leaf in leaves if isinstance(leaf.value, GroupConfig)}
    meters = [leaf.value.id for leaf in leaves if isinstance(leaf.value, MeterConfig)]
    for leaf in leaves:
        if re.fullmatch(r"(groups|wallboxes)\[\d+\]\.group", leaf.path) and leaf.value is not None:
            path, inside = [str(leaf.value)], above.get(str(leaf.value))
            while inside is not None and inside not in path:
                path.append(inside)
                inside = above.get(inside)
            if leaf.value not in above:
                yield leaf, f"there is no group {leaf.value}; there are {', '.join(above) or 'none'}"
            elif inside == leaf.value and leaf.path.startswith("groups"):
                yield leaf, f"a group cannot be inside itself: {' -> '.join([*path, inside])}"
        elif re.fullmatch(r"(groups|wallboxes)\[\d+\]\.meter", leaf.path) and leaf.value not in (None, *meters):
            yield leaf, f"there is no meter {leaf.value}; there are {', '.join(meters) or 'none'}"


def _attached(leaves: Sequence[Leaf]) -> Iterable[tuple[Leaf, str]]:
    """Meters of wallboxes that measure something else, too, or too seldom."""
    meters = {leaf.value.id: leaf.value for leaf in leaves if isinstance(leaf.value, MeterConfig)}
    boxes = {leaf.path: leaf.value for leaf in leaves if isinstance(leaf.value, WallboxConfig)}
    owners: dict[str, str] = {}
    for leaf in leaves:
        box, _, key = leaf.path.rpartition(".")
        if box not in boxes or key != "meter" or leaf.value not in meters:
            continue
        meter, owner = meters[leaf.value], owners.setdefault(leaf.value, boxes[box].id)
        if owner != boxes[box].id:
            yield leaf, f"{meter.id} is the meter of {owner}: each wallbox has one of its own"
        elif meter.role not in ("wallbox", "display"):
            yield leaf, f"{meter.id} has the role {meter.role}; the meter of a wallbox has the role wallbox"
        elif meter.poll_s > boxes[box].patience_s / 2:
            yield leaf, f"{meter.id} is read every {meter.poll_s:g} s; allowed: {boxes[box].patience_s / 2:g} s or less"


def _circles(leaves: Sequence[Leaf]) -> Iterable[tuple[Leaf, str]]:
    """Expression meters that refer to themselves."""
    meters = [leaf.value for leaf in leaves if isinstance(leaf.value, MeterConfig)]
    declared = [(leaf.path.partition(".")[2], leaf.value) for leaf in leaves if isinstance(leaf.value, VariableConfig)]
    contacts = {fold(leaf.value.id): leaf.value.source for leaf in leaves if isinstance(leaf.value, ContactConfig)}
    initial = {fold(name): variable.initial for name, variable in declared if variable.initial}
    fallback = {fold(name): variable.fallback for name, variable in declared if variable.fallback}
    for leaf in leaves:
        if isinstance(leaf.value, MeterConfig):
            worlds = (initial | contacts, initial | fallback | contacts)
            if circle := next(filter(None, (inputs.circle_of(leaf.value, meters, world) for world in worlds)), ""):
                yield leaf, f"refers to itself: {circle}"


def _sunless(leaves: Sequence[Leaf]) -> Iterable[tuple[Leaf, str]]:
    """Rules for a surplus that nobody measures."""
    if any(isinstance(leaf.value, MeterConfig) and leaf.value.role == "grid" for leaf in leaves):
        return
    if not any(leaf.path == "grid.surplus_w" for leaf in leaves):
        for leaf in leaves:
            if isinstance(leaf.value, RuleConfig) and leaf.value.surplus:
                yield leaf, "surplus needs a meter of the role grid, or grid.surplus_w"


_CHECKS: Sequence[Checks] = (
    _twice,
    _far_ends,
    _untunnelled,
    _dangling,
    _fed,
    _contacts,
    _groups,
    _attached,
    _circles,
    _sunless,
)
"""What is looked at when every value by itself is right."""


def hints(config: Config) -> list[str]:
    """What is allowed but looks like a slip: variables used in formulas and declared nowhere."""
    found = []
    for where, formula, own in _formulas(config):
        for name in sorted(formula.names):
            known = (*config.declared, *config.contact_ids, *own, *balance.PREDEFINED)
            if "." not in name and name not in known:
                close = get_close_matches(name, config.declared, n=1)
                like = f" (did you mean {config.declared[close[0]][0]}?)" if close else ""
                found.append(
                    f"{where}: {name} is not declared under variables{like}; "
                    "until somebody sets it, the formula has no value"
                )
    return found


_GRID_FORMULAS = tuple(shape.name for shape in fields(GridConfig) if "Formula" in str(shape.type))


def _formulas(config: Config) -> Iterable[tuple[str, Formula, Collection[str]]]:
    """Every formula of the configuration, where it stands, and the names it finds there."""
    for key in _GRID_FORMULAS:
        if formula := getattr(config.grid, key):
            yield f"grid.{key}", formula, ()
    for index, group in enumerate(config.groups):
        for key in ("power_w", "current_a"):
            if formula := getattr(group, key):
                yield f"groups[{index}].{key}", formula, ()
    for name, declared in config.variables.items():
        for key in ("initial", "fallback"):
            if formula := getattr(declared, key):
                yield f"variables.{name}.{key}", formula, ()
    for index, meter in enumerate(config.meters):
        for quantity, formula in meter.values.items():
            yield f"meters[{index}].values.{quantity}", formula, {*meter.values, inputs.DT}
    for index, box in enumerate(config.wallboxes):
        for key in ("max_current_a", "max_power_w"):
            if formula := getattr(box, key):
                yield f"wallboxes[{index}].{key}", formula, ()
        for number, rule in enumerate(box.rules):
            for key in ("when", "current_a", "power_w"):
                if formula := getattr(rule, key):
                    yield f"wallboxes[{index}].rules[{number}].{key}", formula, ()


def state_dir(given: str | None, config: Config | None) -> Path:
    """Where state is kept: ``--state-dir``, the file's ``state_dir``, systemd's, else the user's state directory."""
    for chosen in (given, config.state_dir if config else None, os.environ.get("STATE_DIRECTORY")):
        if chosen:
            return Path(chosen)
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "smgw-bridge"
