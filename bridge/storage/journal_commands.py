"""What ``smgw-bridge journal`` does; it may run while the service does."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from bridge.errors import BridgeError
from bridge.storage import reading
from bridge.storage.files import folder_of, read_head
from bridge.storage.verify import verify

MAX_SHOWN = 50


def run(options: argparse.Namespace, state_dir: Path) -> int:
    """Verify, or export; the exit code. Raises BridgeError for a time that is none."""
    if not folder_of(state_dir).exists() and read_head(state_dir) is None:
        print(f"there is no journal in {state_dir}", file=sys.stderr)
        return 1
    return _verify(state_dir) if options.action == "verify" else _export(options, state_dir)


def _verify(state_dir: Path) -> int:
    found = verify(state_dir)
    for problem in found.problems[:MAX_SHOWN]:
        print(problem)
    if len(found.problems) > MAX_SHOWN:
        print(f"and {len(found.problems) - MAX_SHOWN} more")
    for hint in found.hints:
        print(f"hint: {hint}", file=sys.stderr)
    span = f", {found.first['at']} to {found.last['at']}" if found.first and found.last else ""
    head = f", head {found.last['seq']} {found.last['hash']}" if found.last else ""
    print(f"{'NOT AS IT WAS WRITTEN' if found.problems else 'fine'}: {found.entries} entries{span}{head}")
    return 1 if found.problems else 0


def _export(options: argparse.Namespace, state_dir: Path) -> int:
    try:
        lines = reading.span(state_dir, options.since, options.until)
    except ValueError as error:
        raise BridgeError(str(error)) from None
    if options.format == "json":
        print(json.dumps(reading.grouped(lines), indent=1))
    else:
        reading.write_csv(lines, sys.stdout)
    return 0
