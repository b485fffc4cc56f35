"""What the SMGW door costs the LAN door when the far end misbehaves: slow requests, and handshakes without end."""

from __future__ import annotations

import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from multiprocessing import get_context
from typing import NamedTuple

from bench.client import Client
from bench.stack import Bridge, Broker, free_port
from bench.table import Row, over_rounds, percentile
from bridge.smgw.contexts import client_context

PART = "Doors"
CONNECTIONS = 200
PEERS = 2
"""Loopback addresses the connections come from: one peer gets at most 100."""
HAMMERING = 20
"""Threads that make handshakes."""

TIMES = 2.0


class Effort(NamedTuple):
    """Rounds with and without an attack in turn, and requests in each."""

    rounds: int
    requests: int


def run(effort: Effort) -> Iterator[Row]:
    """All rows of this part."""
    port = free_port()
    more = (
        f"smgw: {{certificate: cls, gateway_certificate: smgw, listen: '127.0.0.1:{port}', "
        "far_ends: [{certificate: other}]}\n"
    )
    with Broker() as broker, Bridge(broker, more=more, papers=("cls", "smgw", "other")) as bridge:
        bridge.wait_until_healthy()
        certificates = (bridge.store.load("smgw"), bridge.store.load("cls"))
        context = client_context("bsi-brainpool256", *certificates)
        with Client(bridge.port) as client:
            yield from _compared("200 slow clients at the SMGW door", client, effort, lambda: slow(port, context))
            files = (str(certificates[0].certificate_file), str(certificates[0].key_file))
            yield from _compared("handshakes without end there", client, effort, lambda: hammered(port, *files))


def _compared(name: str, client: Client, effort: Effort, attack: Callable[[], object]) -> Iterator[Row]:
    """The LAN door's p99 with the attack by that without, measured in turn."""
    calm, attacked = [], []
    for _ in range(effort.rounds):
        calm.append(_took(client, effort.requests))
        with attack():  # type: ignore[attr-defined]
            attacked.append(_took(client, effort.requests))
    p99 = over_rounds(attacked, 0.99)
    before = over_rounds(calm, 0.99)
    note = f"{before:.2f} -> {p99:.2f} ms; median {percentile(calm[0], 0.5):.2f} -> {percentile(attacked[0], 0.5):.2f}"
    yield Row(PART, f"LAN p99, {name}", p99 / before, "x", TIMES, note=note)


def _took(client: Client, requests: int) -> list[float]:
    """Milliseconds of each of some requests, one after the other."""
    took = []
    for _ in range(requests):
        since = time.monotonic()
        client.get("/api/v1/variables")
        took.append((time.monotonic() - since) * 1000)
        time.sleep(0.002)
    return took


@contextmanager
def slow(port: int, context: ssl.SSLContext) -> Iterator[None]:
    """Half of the connections never begin with TLS, the other half never end the head of a request."""
    with ExitStack() as wires:
        for number in range(CONNECTIONS):
            wire = wires.enter_context(_connected(port, number))
            if number % 2:
                wire = wires.enter_context(context.wrap_socket(wire))
                wire.sendall(b"GET /cnf?cmd=get_cm_vars HTTP/1.1\r\nHost: a\r\nX: ")
        yield


@contextmanager
def hammered(port: int, certificate: str, key: str) -> Iterator[None]:
    """Another process makes one full handshake after the other."""
    process = get_context("spawn").Process(target=hammer, args=(port, certificate, key), daemon=True)
    process.start()
    time.sleep(2.0)  # what it may have at once is used up then
    try:
        yield
    finally:
        process.kill()
        process.join()


def hammer(port: int, certificate: str, key: str) -> None:
    """Handshakes until killed, from all the addresses."""
    os.nice(19)  # the far end would be another machine: it shall not take the time of this one
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ecdh_curve("brainpoolP256r1")
    context.load_cert_chain(certificate, key)

    def endless(number: int) -> None:
        while True:
            with suppress(OSError), _connected(port, number) as wire, context.wrap_socket(wire):
                pass

    threads = [threading.Thread(target=endless, args=[number]) for number in range(HAMMERING)]
    for thread in threads:
        thread.start()


def _connected(port: int, number: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), 10, (f"127.0.0.{2 + number % PEERS}", 0))
