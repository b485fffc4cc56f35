"""Receipts: what came of each accepted set, from the request to the register of every wallbox."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from bridge.core.decision import Decision
from bridge.core.events import SetVariables, Stored
from bridge.core.model import Device, Now, Offer, Receipt, ReceiptBox, State

KEPT = 200
"""So many receipts can be asked for; older ones are forgotten."""

_SAME_A = 0.05
"""Two currents this close are the same: half the finest step of any wallbox."""


def opened(state: State, sets: Sequence[SetVariables], decision: Decision, now: Now) -> Mapping[int, Receipt]:
    """The receipts after a round that took in ``sets`` and decided on them: this is the limit they made."""
    kept = dict(state.receipts)
    for number, cause in enumerate(sets, state.last_receipt + 1):
        if len(kept) >= KEPT:
            del kept[next(iter(kept))]
        kept[number] = Receipt(number, cause, now.utc, decision.grid.limit_w, now.utc)
    return kept


def stored(state: State, event: Stored, now: Now) -> State:
    """The state after storage committed, or failed to."""
    kept = dict(state.receipts)
    for number, receipt in state.receipts.items():
        if number <= event.receipt and receipt.stored_at is None:
            stored_at = None if event.error else now.utc
            kept[number] = replace(receipt, stored_at=stored_at, error=event.error)
    through = state.stored_receipt if event.error else max(state.stored_receipt, event.receipt)
    return state.but(receipts=kept, stored_receipt=through)


def followed(state: State, decision: Decision) -> Mapping[int, Receipt]:
    """The receipts with the newest brought up to date; what older ones still waited for is superseded."""
    newest = state.receipts.get(state.last_receipt)
    if newest is None or newest.settled:
        return state.receipts
    kept = dict(state.receipts)
    number = newest.id - 1
    while (older := kept.get(number)) and not older.settled:
        kept[number] = _superseded(older, decision)
        number -= 1
    boxes = {
        box: _box(newest.wallboxes.get(box), setpoint.wanted_a, state.offers.get(box), state.devices.get(box))
        for box, setpoint in decision.setpoints.items()
    }
    settled = all(box.state == "confirmed" for box in boxes.values())
    kept[newest.id] = replace(newest, wallboxes=boxes, settled=settled)
    return kept


def _box(known: ReceiptBox | None, wanted_a: float, offer: Offer | None, device: Device | None) -> ReceiptBox:
    """How far one wallbox has followed; once it has, later changes are not this set's any more."""
    if known is not None and known.state == "confirmed":
        return known
    confirmed_a = offer.confirmed_a if offer else None
    if device is None or not device.online:
        return ReceiptBox(wanted_a, confirmed_a, None, "unreachable")
    if offer and not offer.pending and confirmed_a is not None and abs(confirmed_a - wanted_a) < _SAME_A:
        return ReceiptBox(wanted_a, confirmed_a, offer.confirmed_at, "confirmed")
    return ReceiptBox(wanted_a, confirmed_a, None, "pending")


def _superseded(receipt: Receipt, decision: Decision) -> Receipt:
    """A receipt whose set was followed by a newer one before every wallbox had confirmed it."""
    known = receipt.wallboxes or {box: ReceiptBox(point.wanted_a) for box, point in decision.setpoints.items()}
    boxes = {id: box if box.state == "confirmed" else replace(box, state="superseded") for id, box in known.items()}
    return replace(receipt, wallboxes=boxes, settled=True)
