"""Meters of the profile ``gpio-input``: contacts between a pin and ground become readings.

The kernel watches the lines (GPIO character device, uAPI v2): pulled up, active low, so that a closed contact reads 1
and a broken wire 0. Each chip has a thread that sleeps until an edge or until it is time to show that it is alive.
"""

from __future__ import annotations

import errno
import logging
import threading
import time
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from bridge.core.config import Config, MeterConfig
from bridge.core.events import Link, Read
from bridge.core.model import Snapshot
from bridge.edge import Post

logger = logging.getLogger(__name__)

DEBOUNCE = timedelta(milliseconds=10)
"""What the kernel takes for bouncing; ``debounce_s`` of a contact comes on top."""
ALIVE_S = 0.5
"""So long a thread sleeps at most: the edge has to stop within a second."""
RETRY_S = 5.0

_ADVICE: Mapping[int, str] = {
    errno.ENOENT: "no such chip; gpiodetect lists those there are",
    errno.ENODEV: "this is no GPIO chip; gpiodetect lists those there are",
    errno.EACCES: "no right to it: add the bridge's user to the group gpio",
    errno.EBUSY: "another program has one of the pins",
    errno.EINVAL: "the chip has no such pin, or it cannot be an input with a pull-up",
}


class GpioEdge:
    """Reads the pins of all ``gpio-input`` meters."""

    def __init__(self, config: Config, post: Post) -> None:
        self._post = post
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(meter,), name=f"gpio-{meter.id}", daemon=True)
            for meter in config.meters
            if meter.fed_by == "gpio"
        ]

    def start(self) -> None:
        """Begin to read."""
        for thread in self._threads:
            thread.start()

    def offer(self, snapshot: Snapshot) -> None:
        """Nothing that was decided is of interest to a contact."""

    def stop(self) -> None:
        """Give the pins back."""
        self._stopping.set()
        for thread in self._threads:
            thread.join(1.0)

    def _run(self, meter: MeterConfig) -> None:
        told = ""
        while not self._stopping.is_set():
            try:
                with _requested(meter) as request:
                    told = ""
                    self._follow(meter, request)
            except ImportError:
                reason = "gpiod is not installed: pip install 'smgw-bridge[gpio]'"
            except (OSError, ValueError) as error:
                number = error.errno if isinstance(error, OSError) else errno.EINVAL
                reason = f"{meter.address}: {_ADVICE.get(number or 0, str(error))}"
            else:
                return
            if reason != told:
                logger.error("%s cannot be read: %s", meter.id, reason)
                self._post(Link(meter.id, False, reason))
                told = reason
            self._stopping.wait(RETRY_S)

    def _follow(self, meter: MeterConfig, request: Any) -> None:
        """Read all pins after every edge, and now and then without one."""
        self._post(Link(meter.id, True))
        pins = list(meter.pins.values())
        while not self._stopping.is_set():
            levels = request.get_values(pins)
            values = {quantity: float(bool(level)) for quantity, level in zip(meter.pins, levels, strict=True)}
            self._post(Read(meter.id, values, time.monotonic()))
            if request.wait_edge_events(min(meter.poll_s, ALIVE_S)):
                request.read_edge_events()


def _requested(meter: MeterConfig) -> Any:
    """The pins of a meter, as inputs; raises ImportError, OSError or ValueError."""
    import gpiod
    from gpiod.line import Bias, Direction, Edge

    settings = gpiod.LineSettings(
        direction=Direction.INPUT,
        edge_detection=Edge.BOTH,
        bias=Bias.PULL_UP,
        active_low=True,
        debounce_period=DEBOUNCE,
    )
    return gpiod.request_lines(meter.address, consumer="smgw-bridge", config={tuple(meter.pins.values()): settings})
