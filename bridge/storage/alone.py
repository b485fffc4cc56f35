"""One bridge to a state directory: two would write their entries into the same journal, and neither could be proved."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bridge.errors import ConfigError


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """No other bridge runs in ``folder`` meanwhile; raises :class:`ConfigError` when one does already.

    The folder itself is locked: nothing is left behind, whatever way the process ends.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError([f"another bridge is running with the state directory {folder}"]) from None
        except OSError:
            # Some network file systems lock no folders: better a bridge without this than none.
            pass
        yield
    finally:
        os.close(descriptor)
