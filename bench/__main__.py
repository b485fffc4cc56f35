"""Measure the bridge on this machine and compare with the goals: ``python -m bench [--quick] [--json FILE]``."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from bench import channel, days, deciding, doors, failures, footprint, latency, reading, scale, table
from bench.table import Row

PARTS = ("latency", "deciding", "days", "failures", "doors", "channel", "profiles", "scale", "footprint")


def main() -> int:
    """Run the parts asked for; 0 even when goals are missed, for a benchmark is no test."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="What the bridge costs and how quick it is.")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}; left out: all")
    parser.add_argument("--quick", action="store_true", help="under a minute, and less exact")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to a file, too")
    options = parser.parse_args()
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    if shutil.which("mosquitto") is None:
        print("mosquitto is needed (apt install mosquitto)", file=sys.stderr)
        return 1
    machine = _machine()
    print(machine, flush=True)
    begun = time.monotonic()
    rows: list[Row] = []
    for part in options.parts or PARTS:
        print(f"measuring {part} ...", file=sys.stderr, flush=True)
        try:
            rows.extend(_measured(part, options.quick))
        except (OSError, RuntimeError) as error:
            print(f"{part} could not be measured to its end: {error}", file=sys.stderr, flush=True)
    missed = sum(row.met is False for row in rows)
    judged = sum(row.met is not None for row in rows)
    print(table.text(rows))
    print(f"{judged - missed} of {judged} goals met, in {time.monotonic() - begun:.0f} s")
    if options.json:
        figures = {"machine": machine, "rows": [{**asdict(row), "met": row.met} for row in rows]}
        options.json.write_text(json.dumps(figures, indent=2) + "\n")
    return 0


def _measured(part: str, quick: bool) -> Iterator[Row]:
    if part == "latency":
        return latency.run(latency.Effort(2, 8) if quick else latency.Effort(5, 80))
    if part == "deciding":
        return deciding.run(30 if quick else 200)
    if part == "failures":
        return failures.run(failures.Effort(4, (1.0,)) if quick else failures.Effort(40, (1.0, 3.0, 6.0)))
    if part == "doors":
        return doors.run(doors.Effort(2, 300) if quick else doors.Effort(5, 1000))
    if part == "channel":
        return channel.run(channel.Effort(3, 4, 4) if quick else channel.Effort(30, 10, 20))
    if part == "profiles":
        return reading.run(1, 0.0, 2.0) if quick else reading.run(5, 3.0, 10.0)
    if part == "days":
        return days.run(2.0, 4) if quick else days.run(24.0)
    if part == "scale":
        return scale.run(0.0, 1.5) if quick else scale.run(3.0, 10.0)
    return footprint.run(1, 0.5) if quick else footprint.run(5, 2.0)


def _machine() -> str:
    load = ", ".join(f"{one:.1f}" for one in os.getloadavg())
    return f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, load before {load}"


if __name__ == "__main__":
    sys.exit(main())
