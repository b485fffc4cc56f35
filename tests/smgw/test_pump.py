"""Bytes between two pairs of streams: how it ends, in the bridge and in the simulated gateway."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable

import pytest

from bridge.simulator.channel import channel
from bridge.smgw.pump import pump
from bridge.smgw.tunnel import Streams

Carries = Callable[[Streams, Streams], Awaitable[None]]


@pytest.mark.parametrize(
    "carry", [lambda one, other: pump(one, other, 60.0), lambda one, other: channel(one, other, 60.0, 60.0)]
)
def test_who_is_cancelled_twice_leaves_nothing_open(carry: Carries) -> None:
    """One that stops while a connection is being closed: the second time comes before the closing has begun."""

    async def go() -> None:
        pairs = [socket.socketpair() for _ in range(2)]
        one, other = [await asyncio.open_connection(sock=ours) for ours, _ in pairs]
        carrying = asyncio.ensure_future(carry(one, other))
        await asyncio.sleep(0)  # it waits now
        for _ in range(2):
            carrying.cancel()
            await asyncio.sleep(0)
        await asyncio.gather(carrying, return_exceptions=True)
        assert one[1].is_closing()
        assert other[1].is_closing()
        await asyncio.gather(one[1].wait_closed(), other[1].wait_closed())
        for _, theirs in pairs:
            theirs.close()

    asyncio.run(go())
