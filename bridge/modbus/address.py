"""Where a device is: at the end of a TCP connection or of a serial line, and how requests are framed there."""

from __future__ import annotations

import re
from dataclasses import replace
from importlib.util import find_spec
from typing import Literal, NamedTuple, cast, get_args
from urllib.parse import parse_qsl

from bridge.errors import ConfigError
from bridge.modbus.profile import Connection, Framing, Serial

_SETTINGS = {"baud": r"[1-9]\d{2,6}", "parity": "[NEO]", "stopbits": "[12]"}


class Where(NamedTuple):
    """``serial`` None: ``host`` and ``port`` on the network; else ``host`` is the path of a serial device."""

    host: str
    port: int
    framing: Framing
    serial: Serial | None = None

    def __str__(self) -> str:
        return self.host if self.serial else f"{self.host}:{self.port}"

    @property
    def spoken(self) -> str:
        """Framing and line settings in words."""
        line = self.serial
        return self.framing + (f" at {line.baud} baud 8{line.parity}{line.stopbits}" if line else "")

    @property
    def silence_s(self) -> float:
        """The pause that ends a frame on a serial line: 3.5 characters of 11 bits, or 1.75 ms on a fast one.

        Source: MODBUS over Serial Line V1.02, 2.5.1.1.
        """
        return max(3.5 * 11 / self.serial.baud, 0.00175) if self.serial else 0.0


def locate(address: str, manners: Connection) -> Where:
    """What the address of a device means; what it leaves open, its profile says.

    ``host[:port]``; with ``tcp://``, ``rtu://`` or ``ascii://`` in front, framed that way; ``/dev/…`` or
    ``serial:///dev/…?baud=9600&parity=E&stopbits=1``. Raises :class:`ConfigError`.
    """
    scheme, slashes, rest = address.rpartition("://")
    if scheme == "serial" or rest.startswith("/"):
        path, _, query = rest.partition("?")
        if find_spec("serial") is None:
            raise ConfigError([f"{path}: serial lines need pyserial: pip install 'smgw-bridge[serial]'"])
        return Where(path, 0, "ascii" if manners.framing == "ascii" else "rtu", _serial(query, manners.serial))
    if not re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[^:\s/?]+)(:\d{1,5})?", rest) or scheme not in ("", *get_args(Framing)):
        raise ConfigError(
            [f"{address}: neither host, host:port or rtu://host:port nor a serial line such as /dev/ttyUSB0"]
        )
    framing = cast(Framing, scheme) if slashes else manners.framing
    host, port = host_port(rest, manners.port)
    if port > 65535:
        raise ConfigError([f"{address}: there is no port {port}; allowed: 1 to 65535"])
    return Where(host, port, framing)


def host_port(address: str, default: int) -> tuple[str, int]:
    """The two parts of ``host``, ``host:port`` or ``[v6]:port``."""
    host, colon, port = address.rpartition(":")
    if not colon or address.endswith("]"):
        return address.strip("[]"), default
    return host.strip("[]"), int(port)


def _serial(query: str, usual: Serial) -> Serial:
    given = dict(parse_qsl(query, keep_blank_values=True))
    for key, value in given.items():
        if not re.fullmatch(_SETTINGS.get(key, "(?!)"), value):
            raise ConfigError([f"{key}={value}: a serial line has baud=9600, parity=N, E or O, stopbits=1 or 2"])
    return replace(
        usual,
        baud=int(given.get("baud", usual.baud)),
        parity=cast(Literal["N", "E", "O"], given.get("parity", usual.parity)),
        stopbits=cast(Literal[1, 2], int(given.get("stopbits", usual.stopbits))),
    )
