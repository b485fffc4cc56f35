"""Config of the channel through the smart meter gateway (``smgw:`` in ``bridge.yaml``).

The words are those of BSI TR-03109-1: the gateway connects to us (HKS4, HKS5), or we connect to it and name a
destination behind it (HKS3).
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address
from typing import Annotated, Literal

from bridge.core.allowed import Between, Matching

_PORT = r"(6553[0-5]|655[0-2]\d|65[0-4]\d\d|6[0-4]\d{3}|[0-5]?\d{1,4})"
HostPort = Annotated[str, Matching(rf"(\[[0-9A-Fa-f:.]+\]|[^:\s/]+):{_PORT}", "host:port")]
CertificateName = Annotated[
    str, Matching(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", "the name of a certificate: letters, digits, - and _, 64 at most")
]
GatewayAddress = Annotated[
    str,
    Matching(r"(https?://|tls://)?(\[[0-9A-Fa-f:.]+\]|[^:\s/]+)(:\d{1,5})?/?", "host, host:port or a URL"),
]
FarEndRole = Literal["admin", "supplier", "none"]
Function = Literal["power_limit", "tariffs"]
Crypto = Literal["bsi-brainpool256", "bsi-brainpool384", "bsi-nist256", "bsi-nist384", "modern"]

GATEWAY_PORT = 443
"""Where the address of the gateway names no port."""


@dataclass(frozen=True, slots=True)
class FunctionsConfig:
    """What the far end may be given through the gateway; a function that is off answers 403."""

    ocpp: bool = True
    power_limit: bool = True
    tariffs: bool = True


@dataclass(frozen=True, slots=True)
class FarEndConfig:
    """One more peer that may come in at the SMGW door, known by its certificate."""

    certificate: CertificateName
    role: FarEndRole = "supplier"


@dataclass(frozen=True, slots=True)
class SmgwConfig:
    """The gateway in the house network, both ways.

    ``listen`` opens the SMGW door; there TLS may be off (``tls: false``) on a loopback address only, for a certified
    adapter in front. ``tunnel`` is the way out; ``sidecar`` replaces its TLS hop by a program on loopback that speaks
    TLS to the gateway in our place. ``reverse``: the far end at ``destination`` is an HTTP client on a connection that
    we open. ``session_max_h`` keeps a TLS session below the 48 h of TR-03116-3.
    """

    address: GatewayAddress = ""
    certificate: CertificateName | None = None
    gateway_certificate: CertificateName | None = None
    listen: HostPort | None = None
    tls: bool = True
    tunnel: Literal["socks5", "sni", "none"] = "none"
    destination: HostPort | None = None
    reverse: bool = False
    sidecar: HostPort | None = None
    crypto: Crypto = "bsi-brainpool256"
    role: FarEndRole = "supplier"
    functions: FunctionsConfig = FunctionsConfig()
    far_ends: tuple[FarEndConfig, ...] = ()
    session_max_h: Annotated[float, Between(0.01, 48)] = 47.0

    def __post_init__(self) -> None:
        if self.listen and self.tls and not (self.certificate and self.gateway_certificate):
            raise ValueError("the door needs certificate (ours) and gateway_certificate (the only peer let in)")
        if self.listen and not self.tls and not _loopback(self.listen):
            raise ValueError(f"tls: false needs a loopback address to listen on, not {self.listen}")
        if self.tunnel != "none" and not (self.address or self.sidecar):
            raise ValueError(f"tunnel: {self.tunnel} needs the address of the gateway")
        if self.tunnel != "none" and not self.sidecar and not (self.certificate and self.gateway_certificate):
            raise ValueError("the tunnel needs certificate (ours) and gateway_certificate (the gateway's)")
        if self.sidecar and not _loopback(self.sidecar):
            raise ValueError(f"the sidecar must be on a loopback address, not {self.sidecar}: it is not encrypted")
        if self.reverse and (self.tunnel == "none" or not self.destination):
            raise ValueError("reverse needs a tunnel and the destination behind it")

    @property
    def gateway(self) -> tuple[str, int]:
        """Host and port of the gateway."""
        host, port = _split(self.address.removeprefix("https://").removeprefix("http://").removeprefix("tls://"))
        return host, port or GATEWAY_PORT


def _split(text: str) -> tuple[str, int | None]:
    """Host, without brackets, and port of ``host[:port][/]``."""
    host, colon, port = text.rstrip("/").rpartition(":")
    if not colon or not port.isdigit():
        host, port = text.rstrip("/"), ""
    return host.strip("[]"), int(port) if port else None


def _loopback(listen: str) -> bool:
    host, _ = _split(listen)
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
