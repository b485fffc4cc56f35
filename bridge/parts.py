"""The edges of a running bridge: made of a setup, started in order, some of them exchanged when the setup changes.

The hub goes on meanwhile with all that it knows: only those edges are made anew that cannot follow a change themselves.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar, runtime_checkable

from bridge.core.config import Config
from bridge.core.events import Reconfigured
from bridge.edge import Edge
from bridge.hub import Hub

logger = logging.getLogger(__name__)


class Configured(Protocol):
    """What edges are made of."""

    @property
    def config(self) -> Config:
        """The configuration in it."""


S = TypeVar("S", bound=Configured)


@dataclass(frozen=True, slots=True)
class Part(Generic[S]):
    """How an edge is made of a setup, and the ``basis``: what of the setup it cannot follow once it runs."""

    make: Callable[[S], Edge]
    basis: Callable[[S], object] = lambda setup: None


@runtime_checkable
class Heir(Protocol):
    """An edge that ends differently when another one of its kind goes on."""

    def hand_over(self, config: Config) -> None:
        """End like ``stop``, but leave the world as it is as far as it is in ``config``."""


class Parts(Generic[S]):
    """``parts`` by name, in the order in which they are offered snapshots. Not to be used by two threads at once."""

    def __init__(self, hub: Hub, parts: Mapping[str, Part[S]], setup: S) -> None:
        self._hub = hub
        self._parts = parts
        self.setup = setup
        """The one in force."""
        self.edges: dict[str, Edge] = {}
        for name, part in parts.items():
            self.edges[name] = part.make(setup)

    def start(self) -> None:
        """Start every edge, then the hub. Raises OSError when one cannot be; then none runs."""
        _start(self.edges.values())
        self._hub.start([*self.edges.values()])

    def outdated(self, setup: S) -> list[str]:
        """The edges that have to be made anew for another setup."""
        return [name for name, part in self._parts.items() if part.basis(setup) != part.basis(self.setup)]

    def exchange(self, setup: S) -> None:
        """Put another setup into force. Raises OSError or BridgeError when that fails; then the old one is again."""
        before, names = self.setup, self.outdated(setup)
        fresh = {name: self._parts[name].make(setup) for name in names}
        for name in reversed(names):
            edge = self.edges[name]
            if isinstance(edge, Heir):
                edge.hand_over(setup.config)
            else:
                edge.stop()
        self._hub.ask(Reconfigured(setup.config))
        try:
            _start(fresh.values())
        except OSError:
            self._hub.ask(Reconfigured(before.config))
            fresh = {name: self._parts[name].make(before) for name in names}
            _start(fresh.values())
            self._install(fresh)
            raise
        self.setup = setup
        self._install(fresh)

    def _install(self, fresh: Mapping[str, Edge]) -> None:
        self.edges |= fresh
        if fresh:
            self._hub.connect([*self.edges.values()])


def _start(edges: Iterable[Edge]) -> None:
    started: list[Edge] = []
    try:
        for edge in edges:
            edge.start()
            started.append(edge)
    except BaseException:
        for edge in reversed(started):
            edge.stop()
        raise
