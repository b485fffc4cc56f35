"""The SOCKS5 proxy of the simulated gateway (RFC 1928): CONNECT without authentication, to what its profile holds."""

from __future__ import annotations

from asyncio import StreamWriter
from collections.abc import Collection
from ipaddress import ip_address

from bridge.errors import BridgeError
from bridge.simulator.channel import Streams

GRANTED, NOT_ALLOWED, REFUSED_THERE, NO_SUCH_COMMAND = 0, 2, 5, 7


async def requested(client: Streams, profile: Collection[tuple[str, int]], refusal: int) -> tuple[str, int]:
    """The destination (host, port) that is asked for, and may be; the answer is left to the caller.

    One that is not in the profile is refused, and so is everything when ``refusal`` is a code; then
    :class:`BridgeError` is raised. Clients that hang up raise EOFError.
    """
    reader, writer = client
    _, count = await reader.readexactly(2)
    if 0 not in await reader.readexactly(count):
        writer.write(b"\x05\xff")
        raise BridgeError("the bridge offers no SOCKS method without authentication")
    writer.write(b"\x05\x00")
    _, command, _, kind = await reader.readexactly(4)
    size = {1: 4, 4: 16}.get(kind) or (await reader.readexactly(1))[0]
    name, port = await reader.readexactly(size), int.from_bytes(await reader.readexactly(2), "big")
    place = (name.decode("ascii", "replace") if kind == 3 else str(ip_address(name)), port)
    if code := refusal or (NO_SUCH_COMMAND if command != 1 else GRANTED if place in profile else NOT_ALLOWED):
        reply(writer, code)
        raise BridgeError(f"{place[0]}:{place[1]} is refused (SOCKS {code})")
    return place


def reply(writer: StreamWriter, code: int) -> None:
    """Answer the request: 0 granted, else why not (RFC 1928, 6)."""
    writer.write(bytes((5, code, 0, 1)) + bytes(6))
