"""Bytes between two pairs of streams: how it ends."""

from __future__ import annotations

import asyncio
import socket

from bridge.smgw.pump import pump


def test_who_is_cancelled_twice_leaves_nothing_open() -> None:
    """A bridge that stops while a connection is being closed: the second time comes before the closing has begun."""

    async def go() -> None:
        pairs = [socket.socketpair() for _ in range(2)]
        one, other = [await asyncio.open_connection(sock=ours) for ours, _ in pairs]
        pumping = asyncio.create_task(pump(one, other, 60.0))
        await asyncio.sleep(0)  # it waits now
        for _ in range(2):
            pumping.cancel()
            await asyncio.sleep(0)
        await asyncio.gather(pumping, return_exceptions=True)
        assert one[1].is_closing()
        assert other[1].is_closing()
        await asyncio.gather(one[1].wait_closed(), other[1].wait_closed())
        for _, theirs in pairs:
            theirs.close()

    asyncio.run(go())
