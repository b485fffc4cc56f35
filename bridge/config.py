"""``bridge.yaml`` to :class:`~bridge.core.model.Config`: where it lies, what it may say, what is wrong with it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path

from bridge import schema
from bridge.core.formulas import Formula, fold
from bridge.core.model import Config
from bridge.errors import ConfigError
from bridge.schema import Checks, Leaf

DEFAULT_FILE = Path("/etc/smgw-bridge/bridge.yaml")

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


def load(path: Path, checks: Checks = lambda leaves: ()) -> Config:
    """Read a configuration file. Raises :class:`ConfigError` with every mistake, each with line and key."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([f"{path}: cannot be read: {error}"]) from error
    return schema.read(text, str(path), Config, PLANNED, (_twice, _dangling, checks))


def _twice(leaves: Sequence[Leaf]) -> Iterable[tuple[Leaf, str]]:
    """Names that are given twice; upper and lower case make no difference in formulas."""
    for pattern in (r"(meters|wallboxes)\[\d+\]\.id", r"variables\.[^.]+"):
        seen: dict[str, Leaf] = {}
        for leaf in leaves:
            if isinstance(leaf.value, str) and re.fullmatch(pattern, leaf.path):
                first = seen.setdefault(fold(leaf.value), leaf)
                if first is not leaf:
                    yield leaf, f"{leaf.value} is taken: line {first.line} has it already"


def _dangling(leaves: Sequence[Leaf]) -> Iterable[tuple[Leaf, str]]:
    """Formulas that name a meter or wallbox that is not there, which no set could ever mend."""
    ids = [str(leaf.value) for leaf in leaves if leaf.path.endswith("].id")]
    known = {"date", *map(fold, ids)}
    for leaf in leaves:
        if not isinstance(leaf.value, Formula):
            continue
        for name in sorted(leaf.value.names):
            head, dot, _ = name.partition(".")
            if dot and head not in known:
                there = ", ".join(ids) or "no devices"
                yield leaf, f"{leaf.value.text!r} names {name}, but there is no {head}; there are {there}"


def hints(config: Config) -> list[str]:
    """What is allowed but looks like a slip: variables used in formulas and declared nowhere."""
    found = []
    for where, formula in _formulas(config):
        for name in sorted(formula.names):
            if "." not in name and name not in config.declared:
                close = get_close_matches(name, config.declared, n=1)
                like = f" (did you mean {config.declared[close[0]][0]}?)" if close else ""
                found.append(
                    f"{where}: {name} is not declared under variables{like}; "
                    "until somebody sets it, the formula has no value"
                )
    return found


def _formulas(config: Config) -> Iterable[tuple[str, Formula]]:
    """Every formula of the configuration and where it stands."""
    for key in ("connection_power_w", "wallbox_power_w", "reserve_w"):
        if formula := getattr(config.grid, key):
            yield f"grid.{key}", formula
    for name, declared in config.variables.items():
        if declared.initial:
            yield f"variables.{name}.initial", declared.initial
    for index, box in enumerate(config.wallboxes):
        for key in ("max_current_a", "max_power_w"):
            if formula := getattr(box, key):
                yield f"wallboxes[{index}].{key}", formula


def state_dir(given: str | None, config: Config | None) -> Path:
    """Where state is kept: ``--state-dir``, the file's ``state_dir``, systemd's, else the user's state directory."""
    for chosen in (given, config.state_dir if config else None, os.environ.get("STATE_DIRECTORY")):
        if chosen:
            return Path(chosen)
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "smgw-bridge"
