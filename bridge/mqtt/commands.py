"""Commands by MQTT: ``request/COMMAND`` in, ``response/COMMAND`` out. Pure: a message becomes an order.

Refused are retained messages (a stale one would act again after every restart), expired ones, and what is no JSON
object. Who may set what is decided by :func:`bridge.core.variables.accept`, where this door is called ``mqtt``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NoReturn

from bridge.core.events import Override, SetVariables
from bridge.core.loads.inputs import number
from bridge.core.model import Snapshot
from bridge.core.rules import overrides
from bridge.core.variables import Pair, Refused, accept, listing

SOURCE = "mqtt"
MAX_PAYLOAD = 65_536
"""Bytes; more than every variable there may be, each with a long formula's share, needs."""


@dataclass(frozen=True, slots=True)
class Request:
    """A message on ``request/COMMAND``. MQTT 5 callers may name the topic and the mark of the answer themselves."""

    command: str
    payload: bytes
    retained: bool = False
    response_topic: str = ""
    correlation: bytes | None = None


@dataclass(frozen=True, slots=True)
class Order:
    """What a request asks for: an event that is to be applied, or (``event`` None) an ``answer`` that is ready.

    ``head`` is what comes back in every answer: the caller's ``id``, if there was one.
    """

    head: Mapping[str, Any]
    event: SetVariables | Override | None = None
    answer: str = ""

    def ok(self, **more: Any) -> str:
        """The answer that it is done."""
        return json.dumps({**self.head, "status": "ok", **more})

    def error(self, reason: str) -> str:
        """The answer that it is not done, and why."""
        return json.dumps({**self.head, "status": "error", "error": reason})


def answer_topic(base: str, request: Request) -> str:
    """Where the answer goes: to the caller's own topic (MQTT 5, 4.10), but never over a topic of our tree."""
    wish = request.response_topic
    ours = wish == base or (wish.startswith(f"{base}/") and not wish.startswith(f"{base}/response/"))
    if not wish or ours or "+" in wish or "#" in wish:
        return f"{base}/response/{request.command}"
    return wish


def understand(request: Request, snapshot: Snapshot, utc: float) -> Order:
    """Understand a request at the moment ``utc`` (Unix time in seconds). Never raises."""
    bare = Order({})
    try:
        body = _body(request.payload)
        bare = Order({"id": body["id"]} if "id" in body else {})
        if request.retained:
            raise Refused("retained commands are refused: publish without the retain flag")
        if "expires_at" in body:
            _check_expiry(body["expires_at"], utc)
        if request.command not in _COMMANDS:
            raise Refused(f"unknown command {request.command[:40]!r}; there are {', '.join(_COMMANDS)}")
        result = _COMMANDS[request.command](body, snapshot)
    except Refused as refused:
        return Order(bare.head, answer=bare.error(str(refused)))
    if isinstance(result, SetVariables | Override):
        return Order(bare.head, event=result)
    return Order(bare.head, answer=bare.ok(**result))


def _body(payload: bytes) -> dict[str, Any]:
    if len(payload) > MAX_PAYLOAD:
        raise Refused(f"{len(payload)} bytes are too much, at most {MAX_PAYLOAD} are allowed")
    try:
        body = json.loads(payload or b"{}", parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise Refused(f"the payload is no JSON: {error}") from error
    if not isinstance(body, dict):
        raise Refused('the payload must be a JSON object such as {"id":"7","vars":[{"name":"X","expr":1}]}')
    return body


def _no_number(word: str) -> NoReturn:
    raise ValueError(f"{word} is no number")


def _check_expiry(text: object, utc: float) -> None:
    try:
        expires_at = datetime.fromisoformat(str(text))
    except ValueError as error:
        raise Refused("expires_at must be a moment such as 2026-11-22T12:00:00Z") from error
    if expires_at.tzinfo is None:
        raise Refused("expires_at needs its time zone, such as the Z in 2026-11-22T12:00:00Z")
    if expires_at.timestamp() <= utc:
        raise Refused(f"expired at {text}")


def _set_cm_vars(body: dict[str, Any], snapshot: Snapshot) -> SetVariables:
    clear, listed = body.get("clear", False), body.get("vars", [])
    if clear not in (True, False):
        raise Refused("clear must be true or false")
    if not isinstance(listed, list) or not (listed or clear):
        raise Refused('vars must be a list such as [{"name":"X","expr":1}]')
    pairs = [_pair(number, entry) for number, entry in enumerate(listed, 1)]
    return accept(snapshot.config, pairs, bool(clear), SOURCE, snapshot.state)


def _pair(number: int, entry: object) -> Pair:
    known = entry if isinstance(entry, dict) else {}
    name, expression = known.get("name"), known.get("expr")
    if not isinstance(name, str):
        raise Refused(f"vars, entry {number}: name is missing")
    if isinstance(expression, bool) or not isinstance(expression, int | float | str):
        raise Refused(f"{name[:80]}: expr must be a number or a formula")
    return name, expression, known.get("ttl")


def _get_cm_vars(body: dict[str, Any], snapshot: Snapshot) -> dict[str, Any]:
    return {"vars": listing(snapshot)}


def _override_device(body: dict[str, Any], snapshot: Snapshot) -> Override:
    wallbox, flags, milliamperes = body.get("dev_id"), body.get("flags", ""), body.get("mamps")
    if not isinstance(wallbox, str) or not isinstance(flags, str):
        raise Refused('dev_id and flags are texts such as {"dev_id":"E1","flags":"C"}')
    current_a: float | None = None
    if milliamperes is not None:
        try:
            current_a = number(milliamperes) / 1000
        except ValueError as error:
            raise Refused(f"mamps: {error}") from error
    return overrides.accept(snapshot.config, snapshot.state, wallbox, flags, current_a, SOURCE)


_COMMANDS: Mapping[str, Callable[[dict[str, Any], Snapshot], SetVariables | Override | dict[str, Any]]] = {
    "set_cm_vars": _set_cm_vars,
    "get_cm_vars": _get_cm_vars,
    "override_device": _override_device,
}
