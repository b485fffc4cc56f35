"""What the broker should hold, and what it still has to be told. Pure bookkeeping, no IO.

At most one text waits for each topic: a newer one takes the place of an older one. So a broker that does not take
anything costs no more memory than the tree has topics, and gets the newest values as soon as it takes some again.
"""

from __future__ import annotations

from collections.abc import Iterable

from bridge.core.config import Config
from bridge.core.model import Snapshot
from bridge.mqtt.discovery import documents
from bridge.mqtt.render import Topics, Tree

OFFLINE, ONLINE = "offline", "online"


class Outbox:
    """Follows snapshots under one base topic; full topics, texts as they are published retained."""

    def __init__(self, base: str) -> None:
        self.wanted: Topics = {}
        """The whole tree and the discovery documents as of the last snapshot shown; without ``status``."""
        self._base = base
        self._tree = Tree()
        self._config: Config | None = None
        self._documents: Topics = {}
        self._waiting: Topics = {}

    def __len__(self) -> int:
        """How many topics wait."""
        return len(self._waiting)

    def show(self, snapshot: Snapshot) -> None:
        """Take a newer snapshot: what changed since the last one waits to be published."""
        changed = {f"{self._base}/{topic}": text for topic, text in self._tree.follow(snapshot).items()}
        # Documents depend on the configuration and on which quantities there are, not on their values.
        if snapshot.config is not self._config or changed.keys() - self.wanted.keys():
            self._config, before, self._documents = snapshot.config, self._documents, documents(snapshot)
            changed |= dict.fromkeys(before.keys() - self._documents.keys(), "")
            changed |= {topic: text for topic, text in self._documents.items() if before.get(topic) != text}
        self._waiting |= changed
        self.wanted |= changed
        for topic in [topic for topic, text in changed.items() if not text]:
            del self.wanted[topic]

    def everything(self) -> None:
        """The broker may know nothing: the whole tree waits, and after it the word that we are online."""
        self._waiting = {**self.wanted, f"{self._base}/status": ONLINE}

    def contradict(self) -> None:
        """Somebody has said that we are offline, and we are not."""
        self._waiting[f"{self._base}/status"] = ONLINE

    def announce(self) -> None:
        """Home Assistant has just started: the discovery documents wait again."""
        self._waiting |= self._documents

    def sweep(self, found: Iterable[str]) -> None:
        """These topics of ours were found at the broker: those that are not wanted are removed."""
        self._waiting |= {topic: "" for topic in found if topic not in self.wanted}

    def farewell(self, remove: bool) -> None:
        """The last words: offline, or with ``remove`` nothing stays behind at all."""
        self._waiting = dict.fromkeys(self.wanted, "") if remove else {}
        self._waiting[f"{self._base}/status"] = "" if remove else OFFLINE

    def take(self) -> tuple[str, str] | None:
        """The next topic and text to publish; None when nothing waits."""
        topic = next(iter(self._waiting), None)
        return None if topic is None else (topic, self._waiting.pop(topic))
