"""The JSON Schema of profile files, for editors: completion, explanations and red lines while typing.

Made from the same dataclasses that read the files. It knows single values and what goes together inside one mapping;
what lies between mappings (names that lead nowhere) only ``smgw-bridge profiles FILE`` finds.
Draft 7, because that is what YAML editors understand.
"""

from __future__ import annotations

import dataclasses
import json
import types
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from bridge.core.allowed import AtLeast, Between, Matching
from bridge.core.formulas import Formula
from bridge.modbus.profile import (
    Keepalive,
    NumberType,
    PhasesRule,
    Point,
    Profile,
    SetpointRule,
    TextType,
)
from bridge.modbus.quantities import QUANTITIES
from bridge.schema import keys_of

Json = dict[str, Any]

_PLAIN: Mapping[object, Json] = {
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"type": "number"},
    str: {"type": "string"},
    types.NoneType: {"type": "null"},
    Formula: {"type": ["number", "string"], "description": "a number, or a formula over the profile's own points"},
}

_LETTERS: Json = {"enum": list("ABCDEF")}
_TEXTS = get_args(TextType)
_NUMBERS = tuple(kind for kind in get_args(NumberType) if kind != "bool")


def _typed(types: Sequence[str], then: Json) -> Json:
    """What goes with these types, where the point itself says its type."""
    return {"if": {"properties": {"type": {"enum": list(types)}}, "required": ["type"]}, "then": then}


def _functions(reading: Sequence[object], writing: Sequence[object]) -> Json:
    return {"read": {"enum": [*reading, "never"]}, "write": {"enum": list(writing)}}


def _either(*keys: str) -> Json:
    return {"oneOf": [{"required": [key]} for key in keys]}


_TOGETHER: Mapping[type, Json] = {
    Point: {
        **_either("address", "sunspec"),
        "allOf": [
            _typed(_TEXTS, {"required": ["count"], "properties": dict.fromkeys(("scale", "offset", "mask"), False)}),
            _typed(("f32", "f64", "bool"), {"properties": {"mask": False}}),
            _typed(("bool",), {"properties": _functions((1, 2), (5, 15))}),
            _typed((*_TEXTS, *_NUMBERS), {"properties": _functions((3, 4), (6, 16))}),
            _typed(
                (*_NUMBERS, "bool"),
                {"properties": {"count": False, "values": {"propertyNames": {"pattern": r"^-?\d+$"}}}},
            ),
        ],
        "properties": {"scale": {"not": {"const": 0}}},
        "dependencies": {"default": ["values"]},
    },
    SetpointRule: {"dependencies": {"resume": ["pause"]}},
    Keepalive: _either("writes", "read"),
    Profile: {
        "if": {"properties": {"kind": {"const": "wallbox"}}},
        "then": {"anyOf": [{"required": ["state"]}, {"properties": {"points": {"required": ["state"]}}}]},
        "else": {"properties": {"setpoint": False, "phases": False}},
    },
}
"""What the dataclasses say in ``__post_init__`` or :mod:`bridge.modbus.mistakes`, as far as one mapping shows it."""

_NOT_EMPTY = {(SetpointRule, "points"), (PhasesRule, "one"), (PhasesRule, "three")}


def json_schema() -> Json:
    """The schema as a JSON document."""
    definitions: dict[str, Json] = {}
    top = _mapping(Profile, definitions)
    top["properties"]["points"] = _points(definitions)
    top["properties"]["roles"]["additionalProperties"]["propertyNames"] = {"enum": list(QUANTITIES)}
    top["properties"]["identify"]["additionalProperties"] |= {"format": "regex"}
    head = {"$schema": "http://json-schema.org/draft-07/schema#", "title": "Device profile of SMGW Bridge"}
    return head | top | {"definitions": dict(sorted(definitions.items()))}


def text() -> str:
    """The schema as it is printed."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=False)


def _mapping(shape: type, definitions: dict[str, Json]) -> Json:
    """The schema of a dataclass; those inside it go to ``definitions``."""
    properties: Json = {}
    known = keys_of(shape)
    for key, (name, hint, _) in known.items():
        properties[key] = _of(hint, definitions)
        if (shape, name) in _NOT_EMPTY:
            properties[key]["minItems"] = 1
    rules = dict(_TOGETHER.get(shape, {}))
    for key, rule in rules.pop("properties", {}).items():
        properties[key] |= rule
    return {
        "description": (shape.__doc__ or "").split("\n\n")[0].replace("\n    ", " ").replace("``", "`"),
        "type": "object",
        "properties": properties,
        "required": [key for key, (_, _, required) in known.items() if required],
        "additionalProperties": False,
        **rules,
    }


def _points(definitions: dict[str, Json]) -> Json:
    """The points: known quantities with their units, and helpers."""
    point = _of(Point, definitions)
    state = {
        "properties": {"values": {"additionalProperties": _LETTERS}, "default": _LETTERS},
        "required": ["values"],
    }
    units = {name: f"in {quantity.unit}" if quantity.unit else name for name, quantity in QUANTITIES.items()}
    return {
        "description": "The values of the device. Known quantities are published, other names are helpers.",
        "type": "object",
        "minProperties": 1,
        "propertyNames": {"pattern": "^[a-z_][a-z0-9_]*$"},
        "properties": {
            name: {"description": unit, "allOf": [point, *([state] if name == "state" else [])]}
            for name, unit in units.items()
        },
        "additionalProperties": point,
    }


def _of(hint: Any, definitions: dict[str, Json]) -> Json:
    """The schema of any type hint that :mod:`bridge.schema` supports."""
    origin, arguments = get_origin(hint), get_args(hint)
    if hint in _PLAIN:
        return dict(_PLAIN[hint])
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        if hint.__name__ not in definitions:
            definitions[hint.__name__] = {}  # it is on its way
            definitions[hint.__name__] = _mapping(hint, definitions)
        return {"$ref": f"#/definitions/{hint.__name__}"}
    if origin is Annotated:
        return _of(arguments[0], definitions) | _bounds(arguments[1:])
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin in (Union, types.UnionType):
        members = [_of(member, definitions) for member in arguments]
        return {"anyOf": members}
    if origin is tuple:
        return {"type": "array", "items": _of(arguments[0], definitions)}
    if origin is not None and issubclass(origin, Mapping):
        names = _of(arguments[0], definitions)
        named = {"propertyNames": names} if "enum" in names else {}
        return {"type": "object", "additionalProperties": _of(arguments[1], definitions), **named}
    raise TypeError(f"the schema does not support {hint!r}")


def _bounds(rules: Sequence[object]) -> Json:
    bounds: Json = {}
    for rule in rules:
        if isinstance(rule, Between):
            bounds |= {"minimum": rule.low, "maximum": rule.high}
        elif isinstance(rule, AtLeast):
            bounds |= {"minimum": rule.low}
        elif isinstance(rule, Matching):
            bounds |= {"pattern": f"^(?:{rule.pattern})$"}
    return bounds
