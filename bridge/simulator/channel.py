"""The transparent channel of the simulated gateway: bytes both ways, until somebody or a limit ends it."""

from __future__ import annotations

import asyncio
from contextlib import suppress

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]

LAST_WORDS_S = 1.0


async def channel(one: Streams, other: Streams, idle_s: float, session_s: float) -> None:
    """Carry bytes until either side ends, nothing has moved for ``idle_s``, or ``session_s`` are over."""
    clock = asyncio.get_running_loop().time
    end = clock() + session_s

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                limit.reschedule(min(end, clock() + idle_s))
                writer.write(data)
                await writer.drain()

    ways: list[asyncio.Task[None]] = []
    try:
        with suppress(TimeoutError):
            async with asyncio.timeout_at(min(end, clock() + idle_s)) as limit:
                ways = [asyncio.create_task(carry(one[0], other[1])), asyncio.create_task(carry(other[0], one[1]))]
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for way in ways:
            way.cancel()
        try:
            await asyncio.gather(*ways, close(one[1]), close(other[1]), return_exceptions=True)
        finally:
            for _, writer in (one, other):  # whoever is cancelled again in this moment has closed nothing yet
                writer.transport.abort()


async def close(writer: asyncio.StreamWriter) -> None:
    """Send what is left, then close."""
    writer.close()
    try:
        async with asyncio.timeout(LAST_WORDS_S):
            await writer.wait_closed()
    except OSError:  # TimeoutError too
        pass
    finally:
        writer.transport.abort()
