"""Where the journal is: ``STATE/journal/YYYY-MM.jsonl`` and, elsewhere on purpose, ``STATE/journal-head``."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import NamedTuple

from bridge.storage.chain import GENESIS

HEAD_BYTES = 256
"""The head is overwritten in place and fits into one sector of any disk: it is the old one or the new one."""


class Head(NamedTuple):
    """Number and hash of the newest line."""

    seq: int = 0
    hash: str = GENESIS


def folder_of(state_dir: Path) -> Path:
    """Where the months are."""
    return state_dir / "journal"


def months_of(state_dir: Path) -> list[Path]:
    """The files of the journal, the oldest first."""
    return sorted(folder_of(state_dir).glob("[0-9][0-9][0-9][0-9]-[0-9][0-9].jsonl"))


def read_head(state_dir: Path) -> Head | None:
    """The head as it was written last; None when there is none that can be read."""
    try:
        document = json.loads((state_dir / "journal-head").read_bytes())
        return Head(int(document["seq"]), str(document["hash"]))
    except (OSError, ValueError, TypeError, KeyError):
        return None


def write_head(state_dir: Path, head: Head) -> None:
    """Replace the head."""
    text = json.dumps(head._asdict()).ljust(HEAD_BYTES - 1) + "\n"
    overwrite(state_dir / "journal-head", text.encode())


def overwrite(path: Path, content: bytes) -> None:
    """Write over a file in place and wait until it is on disk; a new one is readable by its owner only."""
    new = not path.exists()
    file = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        os.write(file, content)
        os.fsync(file) if new else os.fdatasync(file)
    finally:
        os.close(file)
    if new:
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on disk."""
    file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
