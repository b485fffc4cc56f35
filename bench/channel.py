"""The channel through the gateway: each way with each preset of the BSI, what was agreed on, and what it takes.

HKS3 goes through stunnel, with certificates on both sides, to a far end that answers one byte with another; by SOCKS5
microsocks is in between. Each way has a floor in the same run, taken in turns with it:

- the tunnel of the bridge: a blocking client that sends the same bytes to the same stunnel,
- the SMGW door of the bridge: a blocking server that answers anything with the same few bytes,
- a set asked on a reverse connection: the same set on an open connection at the LAN door.
"""

from __future__ import annotations

import asyncio
import math
import socket
import ssl
import time
from collections.abc import Iterator
from itertools import cycle
from typing import NamedTuple

from bench.client import Client, values
from bench.gateway import NAME, PATIENCE_S, Say, Site, Took, bare, negotiate
from bench.stack import Broker
from bench.table import Row, percentile
from bench.tap import Handshake, Tap
from bridge.core.gateway import Crypto, SmgwConfig
from bridge.errors import BridgeError
from bridge.smgw.contexts import PRESETS
from bridge.smgw.edge import credentials
from bridge.smgw.pump import close
from bridge.smgw.reverse import POOL
from bridge.smgw.tunnel import Tunnel

PART = "Channel"
CRYPTO: tuple[Crypto, ...] = ("bsi-brainpool256", "bsi-brainpool384", "bsi-nist256", "bsi-nist384")
PAUSE_S = 0.04
"""The door takes 30 handshakes a second from one peer."""

QUESTION = b"GET /cnf?cmd=get_cm_vars HTTP/1.1\r\nHost: bridge\r\n\r\n"


class Effort(NamedTuple):
    """Connections by each way; reverse connections, and sets on each of them."""

    connections: int
    reverse: int
    sets: int


class Against(NamedTuple):
    """What some handshakes or first bytes took in milliseconds, and the floor, which has a name."""

    what: str
    ours: list[float]
    floor: list[float]
    name: str


class Cell(NamedTuple):
    """A way with a preset: what was agreed on, and the times."""

    agreed: Handshake
    times: tuple[Against, Against]


def run(effort: Effort) -> Iterator[Row]:
    """All rows of this part. Raises RuntimeError when stunnel or microsocks is missing."""
    ways = {"HKS3, SOCKS5": _socks5, "HKS3, TLS-SNI": _sni, "HKS4/5, door": _door, "HKS3, reverse": _reverse}
    work = 0
    with Broker() as broker:
        for crypto in CRYPTO:
            with Site(broker, crypto) as site:
                for way, measure in ways.items():
                    name = f"{way}, {crypto}"
                    try:
                        yield from list(_rows(name, measure(site, effort), crypto))
                        work += 1
                    except (OSError, EOFError, BridgeError, RuntimeError) as error:
                        yield Row(PART, name, math.inf, "", note=f"does not work: {error or type(error).__name__}")
    cells = len(ways) * len(CRYPTO)
    yield Row(PART, "ways and presets that work", work, f"of {cells}", cells, least=True)


def _rows(name: str, cell: Cell, crypto: Crypto) -> Iterator[Row]:
    """Raises RuntimeError when something else was agreed on than the preset says."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_ciphers(PRESETS[crypto].suites)
    suites = {suite["id"] & 0xFFFF: suite["name"] for suite in context.get_ciphers()}
    number, curve, _ = cell.agreed
    if number not in suites or curve not in PRESETS[crypto].key_types:
        raise RuntimeError(f"suite {number:#06x} and curve {curve or 'none'} were agreed on")
    yield Row(PART, name, len(cell.times[1].ours), "answers", note=f"{suites[number]}, {curve}")
    for one in cell.times:
        ours, floor = percentile(one.ours, 0.5), percentile(one.floor, 0.5)
        note = f"{ours:.2f} ms, {one.name} {floor:.2f} ms; median of {len(one.ours)}"
        yield Row(PART, f"  {one.what}", ours / floor, f"x {one.name}", note=note)


# ------------------------------------------------------------------------------------------------------- the ways


def _socks5(site: Site, effort: Effort) -> Cell:
    return _outward(site, effort, "socks5", ("127.0.0.1", site.far.port), negotiate(site.far.port))


def _sni(site: Site, effort: Effort) -> Cell:
    return _outward(site, effort, "sni", (NAME, 443), lambda wire: wire.sendall(b"?"))


def _outward(site: Site, effort: Effort, tunnel: str, place: tuple[str, int], say: Say) -> Cell:
    """What relays, the broker behind the gateway and reverse connections use."""
    context, name = site.context("cls", "smgw"), NAME if tunnel == "sni" else None

    def way(port: int) -> Tunnel:
        config = SmgwConfig(f"127.0.0.1:{port}", "cls", "smgw", tunnel=tunnel, crypto=site.crypto)  # type: ignore[arg-type]
        return Tunnel(config, credentials(site.store, config))

    async def go() -> Cell:
        ours, floor = [], []
        with Tap(site.stunnel) as tap:
            await _walked(way(tap.port), place)
        for _ in range(effort.connections):
            ours.append(await _walked(way(site.stunnel), place))
            floor.append(bare(context, site.stunnel, say, name))
        return _cell(tap, ours, floor, "bare client")

    return asyncio.run(go())


def _door(site: Site, effort: Effort) -> Cell:
    """The client shows the certificate of the gateway; that it may set something is tried first."""
    context, ours, floor = site.context("smgw", "cls"), [], []

    def ask(wire: ssl.SSLSocket) -> None:
        wire.sendall(QUESTION)

    with Tap(site.door) as tap, context.wrap_socket(socket.create_connection(("127.0.0.1", tap.port))) as wire:
        Client(wire).set(60)
    for _ in range(effort.connections):
        time.sleep(PAUSE_S)
        ours.append(bare(context, site.door, ask))
        floor.append(bare(context, site.far.bare, ask))
    return _cell(tap, ours, floor, "bare server")


def _reverse(site: Site, effort: Effort) -> Cell:
    """The handshakes are those that the process of the bridge makes: only a tap sees them, and adds its own time.

    So the handshakes of the floor are taken at a tap, too. Those during the start of the bridge do not count.
    """
    asked: list[float] = []
    plain: list[float] = []
    context, say = site.context("cls", "smgw"), negotiate(site.far.port)
    with Client(site.lan) as lan, Tap(site.stunnel) as low:
        for _ in range(effort.reverse):
            wire, _ = site.emt.accept()
            with Client(wire) as far:
                turns = cycle([(far, asked), (lan, plain)])
                for avail, (client, times) in zip(values(effort.sets * 2), turns, strict=False):  # each one a change
                    made = client.set(avail)
                    times.append((made.answered_at - made.sent_at) * 1000)
            bare(context, low.port, say)
    ours, floor = ([one.took_ms for one in seen] for seen in (site.tap.seen[POOL:], low.seen))
    times_of = Against("handshake", ours, floor, "bare client"), Against("a set answered", asked, plain, "LAN door")
    return Cell(site.tap.first, times_of)


def _cell(tap: Tap, ours: list[Took], floor: list[Took], name: str) -> Cell:
    shakes = Against("handshake", [one.handshake_ms for one in ours], [one.handshake_ms for one in floor], name)
    firsts = Against("first byte", [one.first_ms for one in ours], [one.first_ms for one in floor], name)
    return Cell(tap.first, (shakes, firsts))


async def _walked(tunnel: Tunnel, place: tuple[str, int]) -> Took:
    passed: dict[str, float] = {}

    def note(step: str, _text: str) -> None:
        passed[step] = time.monotonic()

    begun = time.monotonic()
    async with asyncio.timeout(PATIENCE_S):
        reader, writer = await tunnel.walk(*place, note)
        writer.write(b"?")
        await reader.readexactly(1)
    first = time.monotonic()
    await close(writer)
    return Took((passed["tls"] - begun) * 1000, (first - begun) * 1000)
