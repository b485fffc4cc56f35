"""What installer and gateway administrator agree on, read from the configuration of the bridge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from bridge.core.gateway import SmgwConfig
from bridge.errors import ConfigError
from bridge.simulator.faults import Faults
from bridge.simulator.gateway import Place, Setting
from bridge.simulator.handshake import Papers

FAR_END: Place = ("127.0.0.1", 15080)
"""Where the market participant behind the simulated gateway is spoken to, in plain HTTP."""

_CURVES: Mapping[str, str | None] = {
    "bsi-brainpool256": "brainpoolP256r1",
    "bsi-brainpool384": "brainpoolP384r1",
    "bsi-nist256": "prime256v1",
    "bsi-nist384": "secp384r1",
    "modern": None,
}


def setting_of(
    smgw: SmgwConfig,
    certificates: Path,
    far_end: Place = FAR_END,
    behind: Sequence[Place] = (),
    faults: Mapping[str, object] = MappingProxyType({}),
) -> Setting | None:
    """The other side of ``smgw``, with the certificates in the bridge's own store; None: it is not on this machine.

    ``behind``: what the proxy profile holds beside the destination. ``faults``: fields of :class:`Faults`, as
    :func:`~bridge.simulator.faults.fault` reads them; the other certificate is ours.
    The gateway's key must be there too: raises :class:`ConfigError` when it is not.
    """
    outward = smgw.tunnel != "none" and not smgw.sidecar and _here(smgw.gateway[0])
    door = _split(smgw.listen) if smgw.listen and smgw.tls else None
    if not outward and not (door and _here(door[0])):
        return None
    own, cls = smgw.gateway_certificate, smgw.certificate
    papers = Papers(*(certificates / file for file in (f"{own}.crt", f"{own}.key", f"{cls}.crt")))
    if not papers.key.exists():
        hint = f"smgw-bridge cert create {own} makes one"
        raise ConfigError([f"smgw.gateway_certificate: to simulate the gateway takes its key {papers.key}; {hint}"])
    if "papers" in faults:
        faults = {**faults, "papers": Papers(papers.cls, certificates / f"{cls}.key", papers.cls)}
    destination = _split(smgw.destination) if smgw.destination else None
    return Setting(
        papers,
        _CURVES[smgw.crypto],
        listen=smgw.gateway if outward else None,
        profile=(*([destination] if destination else []), *behind),
        door=door,
        reverse=destination if outward and smgw.reverse else None,
        far_end=far_end,
        faults=Faults(**faults),  # type: ignore[arg-type]
    )


def _here(host: str) -> bool:
    return host in ("127.0.0.1", "::1", "localhost")


def _split(address: str) -> Place:
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)
