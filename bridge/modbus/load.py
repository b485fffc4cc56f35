"""Find and read profile files: the shipped ones and the user's own."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path

from bridge import schema
from bridge.errors import ConfigError
from bridge.modbus.mistakes import mistakes
from bridge.modbus.profile import Profile

logger = logging.getLogger(__name__)

SHIPPED = Path(__file__).parent / "profiles"


def available(folders: Iterable[str | Path] = ()) -> Mapping[str, Path]:
    """Every profile by id, the shipped ones and those in ``folders``; a user's own file replaces a shipped one."""
    files: dict[str, Path] = {}
    for folder in (SHIPPED, *map(Path, folders)):
        files |= {_id(path.stem): path for path in sorted((*folder.glob("*.yml"), *folder.glob("*.yaml")))}
    return files


def readable(folders: Iterable[str | Path] = ()) -> Iterator[Profile]:
    """Every profile without mistakes; the log tells of those that have some, so that they do not hide the others."""
    for path in available(folders).values():
        try:
            yield read(path)
        except ConfigError as error:
            logger.warning("%s is left out: %s", path, error.mistakes[0])


def load(name: str, folders: Iterable[str | Path] = ()) -> Profile:
    """The profile called ``name`` (hyphens or underscores), with ``#2`` at its end for the second connector.

    Raises :class:`ConfigError` when there is none, when its file has mistakes, or has no such connector.
    """
    wanted, _, connector = name.partition("#")
    files = available(folders)
    path = files.get(_id(wanted))
    if path is None:
        close = get_close_matches(_id(wanted), files, n=1)
        meant = f" (did you mean {close[0]}?)" if close else ""
        raise ConfigError([f"there is no profile {wanted}{meant}; your own folder: key profiles of the configuration"])
    profile = read(path)
    if not connector:
        return profile
    if profile.connectors is None or not connector.isdigit() or not 1 <= int(connector) <= profile.connectors.max:
        most = profile.connectors.max if profile.connectors else 1
        raise ConfigError([f"{name}: there is no such connector; allowed: 1 to {most}"])
    return _moved(profile, (int(connector) - 1) * profile.connectors.step)


def read(path: Path) -> Profile:
    """Read one profile file; raises :class:`ConfigError` with all its mistakes."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([f"{path}: cannot be read: {error}"]) from error
    return replace(parse(text, path.name), id=_id(path.stem))


def parse(text: str, file: str) -> Profile:
    """The profile in a text; ``file`` names it in messages. Raises :class:`ConfigError` with all its mistakes."""
    return schema.read(text, file, Profile, checks=[mistakes])


def _id(name: str) -> str:
    return name.lower().replace("_", "-")


def _moved(profile: Profile, by: int) -> Profile:
    """The profile with every connector's point moved; points of the whole station stay."""
    points = {
        name: point if point.station or point.address is None else replace(point, address=point.address + by)
        for name, point in profile.points.items()
    }
    return replace(profile, points=points)
