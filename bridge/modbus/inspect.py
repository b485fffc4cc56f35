"""What ``smgw-bridge profiles`` shows: the list of profiles, and what a profile would ask of a device."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from bridge.core.formulas import Formula
from bridge.errors import ConfigError
from bridge.modbus.cells import cells
from bridge.modbus.load import available, read
from bridge.modbus.plan import Block, plan
from bridge.modbus.profile import Poll, Profile, capability


def listing(folders: Iterable[str | Path] = ()) -> Iterator[str]:
    """One line for each profile; a broken one says so instead of hiding the others."""
    for name, path in sorted(available(folders).items()):
        try:
            profile = read(path)
        except ConfigError as error:
            yield f"{name:<24} has mistakes: {error.mistakes[0]}"
        else:
            yield f"{name:<24} {profile.kind:<9} {profile.vendor} {profile.model}"


def report(path: Path) -> Iterator[str]:
    """What a profile comes to: its read plan and its control. Raises :class:`ConfigError` with every mistake."""
    profile = read(path)
    yield f"{profile.id}: {profile.vendor} {profile.model}, {profile.kind}"
    at = profile.connection
    yield f"port {at.port}, unit {at.unit}, {at.framing}, gaps of {at.gap_ms} ms, {at.write_gap_ms} ms between writes"
    yield from _reads(profile)
    able = capability(profile)
    if able and profile.setpoint:
        points = ", ".join(profile.setpoint.points)
        again = f", again after {_said(profile.setpoint.max_age_s)} s" if profile.setpoint.max_age_s else ""
        yield f"setpoint: {able.min_a:g} to {able.max_a:g} A in steps of {able.step_a:g} A, written to {points}{again}"
    if rule := profile.phases:
        points = ", ".join(dict.fromkeys(write.point for write in (*rule.one, *rule.three)))
        shown = f"shown by {rule.read_back}" if rule.read_back else "not shown"
        times = f"{rule.settle_s:g} s to settle, at least {rule.min_interval_s:g} s apart"
        yield f"phases: switched to 1 or 3 by {points}, {shown}, {times}"
    if profile.failsafe:
        yield f"failsafe: {profile.failsafe.current_a:g} A after {profile.failsafe.timeout_s:g} s of silence"
    if alive := profile.keepalive:
        told = ", ".join(f"{write.point} is written" for write in alive.writes) or f"{alive.read} is read"
        yield f"keepalive: every {_said(alive.every_s)} s {told}"


def _asked(block: Block) -> str:
    last = block.address + block.width - 1
    names = ", ".join(cell.name for cell in block.cells)
    wanted = {cell.address + place for cell in block.cells for place in range(cell.width)}
    unwanted = block.width - len(wanted)
    gaps = f" ({unwanted} of them only to save a request)" if unwanted else ""
    return f"function {block.function}, unit {block.unit}, {block.address} to {last}{gaps}: {names}"


def _said(number: float | Formula) -> str:
    return number.text if isinstance(number, Formula) else f"{number:g}"


def _reads(profile: Profile) -> Iterator[str]:
    known, at = cells(profile, profile.connection.unit), profile.connection
    polls: dict[Poll, str] = {"fast": "every poll", "slow": "every tenth poll", "once": "after connecting"}
    counts = []
    for poll, when in polls.items():
        blocks = plan((cell for cell in known.values() if cell.poll == poll), at.max_block, at.allow_gaps)
        counts.append(len(blocks) * at.repeat)
        yield from (f"{when}: {_asked(block)}" for block in blocks)
    hidden = [name for name, point in profile.points.items() if point.sunspec]
    if any(counts):
        longest = f" ({counts[0] * at.gap_ms / 1000:g} s at least)" if at.gap_ms else ""
        yield f"requests: {counts[0]} every poll{longest}, {counts[1]} more every tenth, {counts[2]} after connecting"
    if hidden:
        yield f"found by SunSpec: {', '.join(hidden)}"
