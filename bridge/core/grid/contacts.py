"""Contacts: ripple control receivers and the relays of a grid operator's control box (W4, W3, S1, S2), debounced.

Unknown means active: what was never read, and what is silent for longer than its device's patience, counts as if the
grid operator had switched it. A wire that breaks opens the contact, so of a normally-closed one it does the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from bridge.core.config import Config, ContactConfig
from bridge.core.decision import Unknown
from bridge.core.formulas import fold
from bridge.core.model import Contact, Now, State
from bridge.core.variables import Names


def followed(config: Config, state: State, now: Now) -> State:
    """The state with every contact as it counts now."""
    if not config.contacts:
        return state
    names = Names(config, state, {}, now)
    contacts: dict[str, Contact] = {}
    for contact in config.contacts:
        key = fold(contact.id)
        before, value = state.contacts.get(key), names.value(contact.source)
        if isinstance(value, Unknown):
            contacts[key] = _unseen(before, value, now, waiting=_waiting(config, state, contact, now))
        else:
            active = (value != 0) == (contact.wiring == "normally-open")
            contacts[key] = _seen(contact, before, active, now)
    return state if contacts == state.contacts else state.but(contacts=contacts)


def _seen(contact: ContactConfig, before: Contact | None, active: bool, now: Now) -> Contact:
    """A change counts when it has held for ``debounce_s``."""
    if before is None:
        return Contact(active, now.utc, active, now.mono)
    if active != before.wanted:
        before = replace(before, wanted=active, wanted_mono=now.mono)
    if active != before.active and now.mono - before.wanted_mono >= contact.debounce_s:
        return replace(before, active=active, changed_at=now.utc, reason="")
    return replace(before, reason="") if active == before.active else before


def _unseen(before: Contact | None, unknown: Unknown, now: Now, waiting: bool) -> Contact:
    if before is None:
        return Contact(True, now.utc, True, now.mono, unknown.reason)
    if waiting or (before.active and before.reason == unknown.reason):
        return before
    changed_at = before.changed_at if before.active else now.utc
    return Contact(True, changed_at, True, now.mono, unknown.reason)


def _waiting(config: Config, state: State, contact: ContactConfig, now: Now) -> bool:
    """Whether a device of the contact is lost, but for so short a time that it may be back at once."""
    heads = {name.partition(".")[0] for name in contact.source.names}
    devices = [config.by_key[head] for head in heads if head in config.by_key]
    known = [(state.device(device.id), device.patience_s) for device in devices]
    return any(not device.online for device, _ in known) and all(
        now.mono - device.mono <= patience_s for device, patience_s in known
    )


def alarms(config: Config, state: State) -> Mapping[str, str]:
    """The contacts that count as active because nobody knows better, by name of the alarm."""
    return {
        f"{contact.id}_unknown": f"{contact.name or contact.id} counts as active: {known.reason}"
        for contact in config.contacts
        if (known := state.contacts.get(fold(contact.id))) and known.reason
    }
