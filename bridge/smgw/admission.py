"""Who is let in by which certificate, as the configuration says it, and what is wrong with what it says."""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress

from bridge.core.config import Config
from bridge.core.gateway import FarEndRole, SmgwConfig
from bridge.core.records.certificates import uses
from bridge.errors import BridgeError
from bridge.schema import Leaf
from bridge.smgw.certificate import Certificate
from bridge.smgw.contexts import misfit, server_context, web_crypto
from bridge.smgw.store import Load, Store

Admitted = tuple[ssl.SSLContext, Mapping[str, FarEndRole]]
"""The context of the SMGW door, and the SHA-256 (hex) of each certificate it takes with what its owner may do."""


_OURS = ("http.certificate", "smgw.certificate")


def roles(smgw: SmgwConfig) -> dict[str, FarEndRole]:
    """The names of all certificates that are let in, with what their owners may do."""
    gateway = {smgw.gateway_certificate: smgw.role} if smgw.gateway_certificate else {}
    return {far.certificate: far.role for far in smgw.far_ends} | gateway


def names(smgw: SmgwConfig) -> list[str]:
    """The names of all certificates of the SMGW door, ours first."""
    return [smgw.certificate or "", *roles(smgw)]


def admitted(store: Store, smgw: SmgwConfig) -> Admitted:
    """Raises :class:`BridgeError` when a certificate is not there or does not fit."""
    peers = {name: store.load(name) for name in roles(smgw)}
    context = server_context(smgw.crypto, store.load(smgw.certificate or ""), peers.values())
    return context, {fingerprint(peers[name]): role for name, role in roles(smgw).items()}


def fingerprint(certificate: Certificate) -> str:
    """SHA-256 as plain hex digits, as it stands in sets, journal and log."""
    return certificate.fingerprint.replace(":", "").lower()


def mistakes(leaves: Sequence[Leaf], store: Store) -> Iterator[tuple[Leaf, str]]:
    """Certificates that are chosen in the configuration, but are not there or cannot do what they were chosen for."""
    smgw = next((leaf.value for leaf in leaves if isinstance(leaf.value, SmgwConfig)), None)
    seen: dict[str, str] = {}
    for leaf in leaves:
        if not leaf.path.startswith(("http.", "smgw.")) or not leaf.path.endswith("certificate") or not leaf.value:
            continue
        try:
            certificate = store.load(str(leaf.value))
        except BridgeError as error:
            yield leaf, str(error)
            continue
        if leaf.path not in _OURS:
            first = seen.setdefault(certificate.fingerprint, leaf.path)
            if first != leaf.path:
                yield leaf, f"{certificate.name} is the same certificate as {first}: one peer has one role"
        for problem in _problems(leaf.path, certificate, smgw):
            yield leaf, problem


def unfit(config: Config | None, certificate: Certificate, load: Load) -> str | None:
    """Why a certificate cannot take the place of the one of its name; None when it can. ``load`` loads the others.

    A new start would fail on it, and with it everything else the bridge does.
    """
    smgw = config.smgw if config else None
    for key in uses(config).get(certificate.name, ()):
        for problem in (*_problems(key, certificate, smgw), *_doubles(key, certificate, smgw, load)):
            return f"{problem}. It is in use as {key}: store the new one under another name, and choose that there"
    return None


def _problems(key: str, certificate: Certificate, smgw: SmgwConfig | None) -> Iterator[str]:
    """Why a certificate cannot be what ``key`` of the configuration wants."""
    if key in _OURS and not certificate.has_key:
        yield f"{certificate.name} has no private key, so it cannot be ours"
    crypto = web_crypto(certificate) if key.startswith("http.") else smgw.crypto if smgw else None
    if crypto and (problem := misfit(crypto, certificate)):
        yield problem


def _doubles(key: str, certificate: Certificate, smgw: SmgwConfig | None, load: Load) -> Iterator[str]:
    """Other peers that are known by this very certificate: one would get the role of the other."""
    if smgw is None or key in _OURS:
        return
    for name in roles(smgw).keys() - {certificate.name}:
        with suppress(BridgeError):  # one that cannot be loaded lets nobody in
            if load(name).fingerprint == certificate.fingerprint:
                yield f"{certificate.name} is the same certificate as {name}: one peer has one role"


def hints(store: Store, lan: str | None) -> Iterator[str]:
    """What is allowed but may surprise. ``lan`` is the certificate of the LAN door."""
    if lan and web_crypto(store.load(lan)) != "modern":
        yield f"http.certificate: {lan} is on a brainpool curve: browsers cannot open the pages; curl can"
