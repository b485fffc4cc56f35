"""The commands of ``/cnf``: each a pure function from a request to an event or an answer.

To add a command, write such a function and name it in :data:`COMMANDS`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NoReturn
from urllib.parse import unquote_plus

from bridge.core import variables
from bridge.core.events import Override, SetVariables
from bridge.core.loads import inputs
from bridge.core.model import Snapshot
from bridge.core.rules import overrides
from bridge.http import feed
from bridge.http.access import Refusal
from bridge.http.feed import Fed

MAX_CONFIRM_S = 30.0
MAX_FIELDS = 20

Answer = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Call:
    """A request to ``/cnf``: the query, the body as it came, who asks, and what was known at that moment.

    ``peer`` is the SHA-256 of the certificate by which the caller is known, in hex.
    """

    query: Mapping[str, str]
    body: bytes
    source: str
    snapshot: Snapshot
    peer: str = ""

    def flag(self, name: str) -> bool:
        """A switch in the query: ``1`` is on, ``0`` or left out is off."""
        value = self.query.get(name, "0")
        if value not in ("0", "1"):
            raise Refusal(400, f"{name} is 0 or 1, not {value[:80]!r}")
        return value == "1"

    def confirm_s(self) -> float | None:
        """How many seconds the caller wants to wait for the wallboxes; None: not at all."""
        text = self.query.get("confirm")
        if text is None:
            return None
        try:
            seconds = float(text)
        except ValueError:
            seconds = 0.0
        if not 0.0 < seconds <= MAX_CONFIRM_S:
            raise Refusal(400, f"confirm is a number of seconds above 0, at most {MAX_CONFIRM_S:g}")
        return seconds


def query_of(text: str) -> Mapping[str, str]:
    """The fields of a query string. A field given twice is refused: half of the caller's wish would get lost."""
    query: dict[str, str] = {}
    try:
        for field in filter(None, text.split("&", MAX_FIELDS)):
            name, _, value = field.partition("=")
            name = _unquoted(name)
            if name in query:
                raise Refusal(400, f"{name[:80]} is given twice; to set many variables, POST a JSON body")
            query[name] = _unquoted(value)
    except UnicodeDecodeError:
        raise Refusal(400, "the query is not UTF-8") from None
    return query


def _unquoted(text: str) -> str:
    return unquote_plus(text, errors="strict") if "%" in text or "+" in text else text


def run(call: Call) -> SetVariables | Override | Fed | Answer:
    """Carry out ``cmd``; raises :class:`Refusal`."""
    name = call.query.get("cmd", "")
    command = COMMANDS.get(name)
    if command is None:
        raise Refusal(404, f"unknown command {name[:80]!r}; there are {', '.join(COMMANDS)}")
    return command(call)


def set_cm_vars(call: Call) -> SetVariables:
    """Set one variable (``name``, ``val`` in the query) or many (the body), with ``clear=1`` after removing the others.

    With ``ttl`` (seconds) it holds for so long only. ``tmp=1`` (do not save) is understood and saved all the same: a
    limit must survive a restart.
    """
    call.flag("tmp")
    clear = call.flag("clear")
    if call.body.strip():
        pairs, also = _in_body(call)
        clear = clear or also
    else:
        pairs = _in_query(call.query)
    try:
        return variables.accept(call.snapshot.config, pairs, clear, call.source, call.snapshot.state, call.peer)
    except variables.Refused as error:
        raise Refusal(403 if error.forbidden else 400, str(error)) from error


def get_cm_vars(call: Call) -> Answer:
    """All variables: what they were set to and what they are now. ``val`` and ``value`` are the same."""
    return {"vars": variables.listing(call.snapshot)}


def set_ajax_meter(call: Call) -> Fed:
    """Feed the meter ``dev_id`` of the profile ``http-input``."""
    return feed.meter(call.snapshot.config, *_told(call))


def set_ajax_evse(call: Call) -> Fed:
    """Feed the wallbox ``dev_id`` of the profile ``http-input``; the answer tells it what to do."""
    return feed.wallbox(call.snapshot.config, *_told(call))


def override_device(call: Call) -> Override:
    """Switch (``flags``) and limit (``mamps``, mA on each line) the wallbox ``dev_id`` until its car leaves."""
    current_a: float | None = None
    if milliamperes := call.query.get("mamps", "").strip():
        try:
            current_a = inputs.number(milliamperes) / 1000
        except ValueError as error:
            raise Refusal(400, f"mamps: {error}") from None
    config, state = call.snapshot.config, call.snapshot.state
    dev_id, flags = call.query.get("dev_id", "").strip(), call.query.get("flags", "").strip()
    try:
        return overrides.accept(config, state, dev_id, flags, current_a, call.source)
    except variables.Refused as error:
        raise Refusal(403 if error.forbidden else 400, str(error)) from error


COMMANDS: Mapping[str, Callable[[Call], SetVariables | Override | Fed | Answer]] = {
    "set_cm_vars": set_cm_vars,
    "get_cm_vars": get_cm_vars,
    "set_ajax_meter": set_ajax_meter,
    "set_ajax_evse": set_ajax_evse,
    "override_device": override_device,
}


def _told(call: Call) -> tuple[str, feed.Fields]:
    """The device and what is told of it, in the query or in the body."""
    if call.source != "admin":
        raise Refusal(403, "devices are fed from inside the house, at the LAN door")
    id = call.query.get("dev_id", "").strip()
    if not id:
        raise Refusal(400, "dev_id is missing, such as dev_id=M1")
    if not call.body.strip():
        return id, call.query
    document = read_json(call.body)
    if not isinstance(document, dict):
        raise Refusal(400, 'the body is an object such as {"power_w": 1200}')
    return id, document


def _in_query(query: Mapping[str, str]) -> list[variables.Pair]:
    for field in ("name", "val"):
        if not query.get(field, "").strip():
            raise Refusal(400, f"{field} is missing; give name and val in the query, or POST a JSON body")
    return [(query["name"].strip(), query["val"], query.get("ttl"))]


def _in_body(call: Call) -> tuple[list[variables.Pair], bool]:
    """The pairs of ``{"vars": [{"name": …, "expr": …}, …]}``, and ``clear`` beside them, as in a command over MQTT.

    The content type is not looked at: ``curl -d`` lies.
    """
    if call.query.keys() & {"name", "val", "ttl"}:
        raise Refusal(400, "name, val or ttl in the query and a body: give one or the other")
    document = read_json(call.body)
    told = document if isinstance(document, dict) else {}
    entries, clear = told.get("vars"), told.get("clear", False)
    if not isinstance(entries, list):
        raise Refusal(400, 'vars is missing: the body is {"vars": [{"name": "AVAIL", "expr": 70}]}')
    if not isinstance(clear, bool):
        raise Refusal(400, "clear is true or false")
    return [_pair(entry, f"vars[{index}]") for index, entry in enumerate(entries)], clear


def _pair(entry: object, place: str) -> variables.Pair:
    if not isinstance(entry, dict):
        raise Refusal(400, f"{place} is not an object with name and expr")
    name, expression = entry.get("name"), entry.get("expr")
    if not isinstance(name, str) or not name.strip():
        raise Refusal(400, f"{place}.name is missing or not a text")
    if isinstance(expression, bool) or not isinstance(expression, int | float | str):
        raise Refusal(400, f"{place}.expr is missing or neither a number nor a formula")
    return name.strip(), expression, entry.get("ttl")


def read_json(body: bytes) -> object:
    """A JSON document; a mistake is refused with line and column. ``NaN`` and ``Infinity`` are mistakes, too."""
    try:
        document = json.loads(body.decode("utf-8-sig"), parse_constant=_no_number)
        if b"\\u" in body:
            # Half of a surrogate pair is a text that cannot be written: not into an answer, a file or a topic.
            json.dumps(document, ensure_ascii=False).encode()
        return document
    except UnicodeEncodeError:
        raise Refusal(400, "not JSON that makes sense: \\ud800 to \\udfff are no characters") from None
    except json.JSONDecodeError as error:
        raise Refusal(400, f"not JSON: {error.msg}, line {error.lineno} column {error.colno}") from None
    except UnicodeDecodeError as error:
        raise Refusal(400, f"not JSON: byte {error.start + 1} is not UTF-8") from None
    except RecursionError:
        raise Refusal(400, "not JSON that makes sense: nested too deeply") from None
    except ValueError:
        raise Refusal(400, "not JSON that makes sense: a number has too many digits") from None


def _no_number(word: str) -> NoReturn:
    raise Refusal(400, f"{word} is not a number")
