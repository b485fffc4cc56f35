"""Carries bytes between two pairs of streams until one side ends."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from bridge.smgw.tunnel import Streams

PIECE = 64 * 1024
LAST_WORDS_S = 2.0
"""What was read already may take this long to be sent before a connection is dropped."""


async def pump(one: Streams, other: Streams, longest_s: float) -> None:
    """Pump both ways. The end of either side ends both: TLS knows no half-closed connection (RFC 8446, 6.1).

    After ``longest_s`` both are closed in any case. Never raises for a broken connection: to be cut is normal here.
    """
    ways = [asyncio.create_task(_carry(one[0], other[1])), asyncio.create_task(_carry(other[0], one[1]))]
    try:
        await asyncio.wait(ways, timeout=longest_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for way in ways:
            way.cancel()
        try:
            await asyncio.gather(close(one[1]), close(other[1]))
        finally:
            for _, writer in (one, other):  # whoever is cancelled again in this moment has closed nothing yet
                writer.transport.abort()


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(PIECE):
            writer.write(data)
            await writer.drain()


async def close(writer: asyncio.StreamWriter) -> None:
    """Send what is left and close, within :data:`LAST_WORDS_S`."""
    writer.close()
    try:
        async with asyncio.timeout(LAST_WORDS_S):
            await writer.wait_closed()
    except OSError:  # TimeoutError too
        pass
    finally:
        writer.transport.abort()
