"""``bridge.yaml`` to :class:`~bridge.core.model.Config`: where it lies, what it may say, what is wrong with it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path

from bridge import schema
from bridge.core.formulas import Formula
from bridge.core.model import Config
from bridge.errors import ConfigError

DEFAULT_FILE = Path("/etc/smgw-bridge/bridge.yaml")

KeyPath = tuple[str | int, ...]
"""Where in the file: ``("wallboxes", 0, "profile")``."""

Checks = Callable[[Config], Iterable[tuple[KeyPath, str]]]
"""Looks at a whole Config and tells (where, what is wrong) of what no single key can show."""

PLANNED: Mapping[str, str] = {
    "smgw": "the smart meter gateway channel",
    "http.certificate": "HTTPS on the LAN door",
    "grid.max_imbalance_a": "the limit on unbalanced load",
    "grid.return_ramp_s": "the ramped return after a grid limit",
    "variables.*.ttl_s": "variables that expire",
    "variables.*.fallback": "variables that expire",
    "variables.*.function": "functions that can be switched off",
    "wallboxes.rules": "charging rules",
}
"""Keys of the format whose feature is not there yet: a clear mistake is better than a limit nobody applies."""


def find(given: str | None) -> Path:
    """The file to read: ``given``, else ``$SMGW_BRIDGE_CONFIG``, else the system's."""
    return Path(given or os.environ.get("SMGW_BRIDGE_CONFIG") or DEFAULT_FILE)


def load(path: Path, checks: Checks = lambda config: ()) -> Config:
    """Read a configuration file. Raises :class:`ConfigError` with every mistake, each with line and key."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([f"{path}: cannot be read: {error}"]) from error
    config = schema.read(text, str(path), Config, PLANNED)
    found = [
        (schema.locate(text, where), f"{schema.written(where)}: {problem}")
        for where, problem in (*_dangling(config), *checks(config))
    ]
    if found:
        raise ConfigError([f"{path}:{line}: {problem}" for line, problem in sorted(found)])
    return config


def _formulas(config: Config) -> Iterable[tuple[KeyPath, Formula]]:
    """Every formula of the configuration and where it stands."""
    for key in ("connection_power_w", "wallbox_power_w", "reserve_w"):
        if formula := getattr(config.grid, key):
            yield ("grid", key), formula
    for name, declared in config.variables.items():
        if declared.initial:
            yield ("variables", name, "initial"), declared.initial
    for index, box in enumerate(config.wallboxes):
        for key in ("max_current_a", "max_power_w"):
            if formula := getattr(box, key):
                yield ("wallboxes", index, key), formula


def _dangling(config: Config) -> Iterable[tuple[KeyPath, str]]:
    """Formulas that name a meter or wallbox that is not there, which no set could ever mend."""
    for where, formula in _formulas(config):
        for name in sorted(formula.names):
            head, dot, _ = name.partition(".")
            if dot and head != "date" and head not in config.by_key:
                ids = ", ".join(device.id for device in config.devices)
                yield where, f"{formula.text!r} names {name}, but there is no {head}; there are {ids or 'no devices'}"


def hints(config: Config) -> list[str]:
    """What is allowed but looks like a slip: variables used in formulas and declared nowhere."""
    found = []
    for where, formula in _formulas(config):
        for name in sorted(formula.names):
            if "." not in name and name not in config.declared:
                close = get_close_matches(name, config.declared, n=1)
                like = f" (did you mean {config.declared[close[0]][0]}?)" if close else ""
                found.append(
                    f"{schema.written(where)}: {name} is not declared under variables{like}; "
                    "until somebody sets it, the formula has no value"
                )
    return found


def state_dir(given: str | None, config: Config | None) -> Path:
    """Where state is kept: ``--state-dir``, the file's ``state_dir``, systemd's, else the user's state directory."""
    for chosen in (given, config.state_dir if config else None, os.environ.get("STATE_DIRECTORY")):
        if chosen:
            return Path(chosen)
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "smgw-bridge"
