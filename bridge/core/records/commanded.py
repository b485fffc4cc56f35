"""Commands in the journal: which sets are commands, and how a flood of them is written down without filling the disk.

A set is a command when one of its variables takes part in a limit, directly or by way of others, or when a limit is
another one after it; whoever sent it, the source stands beside it. Commands are written in full, but

* one that repeats the one before it from the same source word for word, and changes nothing, is only counted;
* one beyond the allowance of its source (:data:`IN_FULL` at once, then one in :data:`REFILL_S`) is summed up.

Sums are written once a minute, mere repeats once an hour, and both before the next command of their source. They name
the first receipt and how many there are, so that no command is missing in the count.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bridge.core.config import Config
from bridge.core.decision import Decision
from bridge.core.events import SetVariables
from bridge.core.formulas import fold
from bridge.core.grid.functions_of import limiting
from bridge.core.model import Now, State
from bridge.core.records.journal import Journal, Sender, Tally, figure
from bridge.core.variables import plain

IN_FULL = 240.0
REFILL_S = 15.0
SUMMED_S = 60.0
REPEATS_S = 3600.0
MAX_VARIABLES = 20
MAX_TEXT = 200
"""Of one command so many variables are written, with so much of each formula; what is left out is counted."""


def noted(
    journal: Journal,
    config: Config,
    state: State,
    decision: Decision,
    sets: Sequence[SetVariables],
    limits: Mapping[str, float],
    now: Now,
) -> Journal:
    """The journal with the sets of one round, after which ``limits`` hold; ``state`` has their receipts already."""
    changed = limits != journal.limits
    names = set() if changed else limiting(config, state, {})
    for receipt, cause in enumerate(sets, state.last_receipt - len(sets) + 1):
        if not (changed or cause.clear or any(fold(name) in names for name, _ in cause.variables)):
            continue
        sender = _refilled(journal.senders.get(cause.source), now)
        said = (cause.peer, cause.clear, cause.variables, cause.ttl_s)
        facts = {"receipt": receipt, "source": cause.source, **_content(cause), **in_short(decision, limits)}
        repeats = said == sender.said and not changed
        if repeats or sender.tokens < 1.0:
            tally = _counted(sender.tally, repeats, decision.grid.limit_w, facts, receipt, now)
            journal = _with(journal, cause.source, sender._replace(said=said, tally=tally))
            continue
        journal = _told(journal, cause.source, sender, now)
        journal = journal.noting("command", now.utc, now.zone, {**facts, "changed": changed})
        journal = _with(journal, cause.source, Sender(said, sender.tokens - 1.0, now.mono))
        if changed and journal.watch:
            journal = journal._replace(watch=journal.watch.following(receipt, now.mono))
    return journal


def summed(journal: Journal, now: Now, everything: bool = False) -> Journal:
    """The journal with the sums that are due; ``everything``: all there are."""
    for source, sender in journal.senders.items():
        tally = sender.tally
        if tally and (everything or now.mono - tally.since >= (REPEATS_S if tally.repeats else SUMMED_S)):
            journal = _told(journal, source, sender, now)
    return journal


def in_short(decision: Decision, limits: Mapping[str, float]) -> dict[str, object]:
    """The limits in force; the least that had to be allowed, and whether it is undercut, where that is known."""
    facts: dict[str, object] = {"limits": shown(limits), "state": decision.grid.state}
    if decision.grid.minimum_w is not None:
        facts |= {"minimum_w": figure(decision.grid.minimum_w), "below_minimum": decision.grid.below_minimum}
    return facts


def shown(limits: Mapping[str, float]) -> dict[str, float | int]:
    """Limits as people write them."""
    return {key: plain(limit) for key, limit in limits.items()}


def _content(cause: SetVariables) -> dict[str, object]:
    """Who said what."""
    said = {
        name: formula.text[:MAX_TEXT] if formula.constant is None else plain(formula.constant)
        for name, formula in cause.variables[:MAX_VARIABLES]
    }
    left_out = len(cause.variables) - len(said)
    facts: dict[str, object] = {"variables": said, "clear": cause.clear}
    if cause.peer:
        facts["peer"] = cause.peer
    if cause.ttl_s:
        facts["ttl_s"] = {name: figure(seconds) for name, seconds in [*cause.ttl_s.items()][:MAX_VARIABLES]}
    if left_out:
        facts["left_out"] = left_out
    return facts


def _refilled(sender: Sender | None, now: Now) -> Sender:
    if sender is None:
        return Sender(None, IN_FULL, now.mono)
    tokens = min(IN_FULL, sender.tokens + (now.mono - sender.mono) / REFILL_S)
    return sender._replace(tokens=tokens, mono=now.mono)


def _counted(
    tally: Tally | None, repeats: bool, limit_w: float, facts: Mapping[str, object], receipt: int, now: Now
) -> Tally:
    if tally is None:
        return Tally(now.mono, receipt, 1, repeats, limit_w, limit_w, facts)
    return Tally(
        tally.since,
        tally.first,
        tally.number + 1,
        tally.repeats and repeats,
        min(tally.lowest_w, limit_w),
        max(tally.highest_w, limit_w),
        facts,
    )


def _told(journal: Journal, source: str, sender: Sender, now: Now) -> Journal:
    """The journal with the sum of a sender's tally, if it has one."""
    tally = sender.tally
    if tally is None:
        return journal
    extremes: dict[str, object] = {"first_receipt": tally.first, "count": tally.number, "repeats": tally.repeats}
    if not tally.repeats:
        extremes |= {"lowest_w": figure(tally.lowest_w), "highest_w": figure(tally.highest_w)}
        if journal.watch:
            receipt = tally.facts["receipt"]
            following = journal.watch.following(receipt if isinstance(receipt, int) else None, now.mono)
            journal = journal._replace(watch=following)
    journal = journal.noting("commands", now.utc, now.zone, {**tally.facts, **extremes})
    return _with(journal, source, sender._replace(tally=None))


def _with(journal: Journal, source: str, sender: Sender) -> Journal:
    return journal._replace(senders={**journal.senders, source: sender})
