"""Offers: what each wallbox may be drawing because it was told so, confirmed or not."""

from __future__ import annotations

from collections.abc import Mapping

from bridge.core.config import WallboxConfig
from bridge.core.decision import Decision
from bridge.core.events import Confirmed
from bridge.core.model import FOLLOWING_S, Now, Offer, Roll

_MAX_PENDING = 8


def offered(roll: Roll, decision: Decision, revision: int, now: Now) -> Mapping[str, Offer]:
    """What is offered: from now on it may be in force, confirmed or not. Idle boxes hold nothing, as they shall."""
    offers: dict[str, Offer] | None = None
    for box, _, offer, _ in roll.present:
        current_a = decision.setpoints[box.id].current_a
        last = offer.sent_a
        if current_a == last:
            continue
        offers = dict(roll.offers) if offers is None else offers
        offers[box.id] = _changed(box, offer, last or 0.0, current_a, revision, now.mono)
    return roll.offers if offers is None else offers


def _changed(box: WallboxConfig, offer: Offer, last_a: float, current_a: float, revision: int, mono: float) -> Offer:
    pending = (*offer.pending, (revision, current_a))
    if len(pending) > _MAX_PENDING:
        # The two oldest become one: the higher current, settled only when the younger one is.
        oldest, second, *rest = pending
        pending = ((second[0], max(oldest[1], second[1])), *rest)
    due_mono = next_due(box, offer, mono)
    if current_a > last_a:
        again = mono - offer.raised_mono < FOLLOWING_S
        raised_from_a = min(offer.raised_from_a, last_a) if again else last_a
        offer = offer._replace(raised_mono=due_mono, raised_from_a=raised_from_a)
    return offer._replace(
        pending=pending,
        paused_mono=mono if current_a <= 0 < min(last_a, offer.confirmed_a or 0.0) else offer.paused_mono,
        resumed_mono=mono if current_a > 0 >= last_a else offer.resumed_mono,
        due_mono=due_mono,
    )


def next_due(box: WallboxConfig, offer: Offer, mono: float) -> float:
    """When a new setpoint would be written: at once, or with the one that waits already, or after the box's gap."""
    return offer.due_mono if offer.due_mono > mono else max(mono, offer.due_mono + box.capability.gap_s)


def confirmed(offer: Offer, event: Confirmed, now: Now) -> Offer:
    """The offer after a read-back."""
    pending = tuple(entry for entry in offer.pending if entry[0] > event.revision)
    changed = offer._replace(confirmed_a=event.current_a, confirmed_at=now.utc, pending=pending)
    if offer.confirmed_a is None and event.current_a > 0:
        # It was charging when we came: its turn begins now.
        changed = changed._replace(resumed_mono=now.mono)
    if (offer.ceiling_a or 0.0) <= (changed.ceiling_a or 0.0):
        return changed
    return changed._replace(lowered=(now.mono, offer.lately_a(now.mono) or 0.0))
