"""A bridge that is going to be killed: two cars come, charge and go; says on standard output what is certain.

``stored N`` a session that has ended is on disk; ``open N SECONDS`` how far an open one has come.
"""

from __future__ import annotations

import sys
from pathlib import Path
from threading import Condition

from bridge.core.events import Event, Link, Read, SessionsStored
from bridge.core.model import Snapshot
from bridge.edge import Post
from bridge.storage.edge import StorageEdge
from tests.core.sites import House, site


class Paced(StorageEdge):
    """Time stands still while the disk works: here a second takes less than a millisecond."""

    def __init__(self, folder: Path, post: Post) -> None:
        super().__init__(folder, post)
        self._done = Condition()

    def offer(self, snapshot: Snapshot) -> None:
        """Wait until what is due has been written; a disk that does not answer ends it all."""
        super().offer(snapshot)
        with self._done:
            if not self._done.wait_for(lambda: not self._sessions.owes(snapshot), 20):
                sys.exit("the disk does not answer")

    def _store(self, snapshot: Snapshot) -> bool:
        with self._done:
            stored = super()._store(snapshot)
            self._done.notify()
        return stored


def main(folder: Path) -> None:
    heard: list[Event] = []
    edge = Paced(folder, heard.append)
    house = House(site(2), edge.load())
    house.utc += 1e6 * house.snapshot.state.sessions.last_id
    edge.start()
    wh, second = 1000.0, 0
    while True:
        second += 1
        wh += 3
        house.mono += 1
        house.utc += 1
        for box, cycle in (("E1", 97), ("E2", 241)):
            state = "A" if second % cycle == 0 else "C"
            house.happen(Link(box, True), Read(box, {"state": state, "energy_wh": wh, "power_w": 10_800.0}, house.mono))
        edge.offer(house.snapshot)
        while heard:
            event = heard.pop(0)
            house.happen(event)
            if isinstance(event, SessionsStored):
                for number in sorted(event.ids):
                    print("stored", number, flush=True)
        for session in house.snapshot.state.sessions.open.values():
            print("open", session.id, session.connected_s, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
