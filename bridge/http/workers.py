"""A few threads that run complete requests. Jobs are taken in the order they came."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from queue import SimpleQueue

logger = logging.getLogger(__name__)

Job = Callable[[], None]


class Workers:
    """``count`` threads on one queue; SimpleQueue wakes a thread in microseconds, an executor takes far longer."""

    def __init__(self, count: int, name: str) -> None:
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._threads = [threading.Thread(target=self._run, name=f"{name}-{n}", daemon=True) for n in range(count)]

    def start(self) -> None:
        """Begin to work."""
        for thread in self._threads:
            thread.start()

    def submit(self, job: Job) -> None:
        """Have a job done soon; callable from any thread."""
        self._jobs.put(job)

    def stop(self) -> None:
        """Take no more jobs; a thread ends after the job it is at."""
        for _ in self._threads:
            self._jobs.put(None)

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                job()
            except Exception:
                logger.exception("a job failed")
