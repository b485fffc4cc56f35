"""Single values of a YAML text are changed; everything else stays as it was written, byte for byte. Pure.

A path is what mistakes in the configuration name: ``smgw.address``, ``wallboxes[0].rules[1].when``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from io import StringIO
from typing import cast

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from bridge.errors import BadRequest

Change = tuple[str, object]
"""Path, and the value that shall stand there: as in JSON; None removes the key."""

_PATH = re.compile(r"[^.\[\]]+(\.[^.\[\]]+|\[\d+\])*")
_STEP = re.compile(r"([^.\[\]]+)|\[(\d+)\]")
_PLAIN = re.compile(r"[A-Za-z0-9_/][A-Za-z0-9_ ./:@%-]*")


def document(text: str) -> object:
    """What the text says, as JSON would; dates are texts. Raises :class:`BadRequest` when it is no YAML."""
    try:
        return json.loads(json.dumps(_loaded(text), default=str))
    except (YAMLError, ValueError) as error:
        raise BadRequest(f"the text is no valid YAML: {str(error).splitlines()[0]}") from error


def edited(text: str, changes: Iterable[Change]) -> str:
    """The text with all changes made. Raises :class:`BadRequest`, naming the path, when one of them cannot be."""
    for path, value in changes:
        steps = _steps(path)
        try:
            wanted = _with(document(text), steps, value)
        except (LookupError, TypeError):
            raise BadRequest(f"{path}: there is no such entry") from None
        try:
            changed = _changed(text, steps, value)
            faithful = document(changed) == wanted
        except (BadRequest, YAMLError, ValueError, LookupError):
            faithful = False
        if not faithful:
            raise BadRequest(f"{path}: cannot be changed alone; change it in the text")
        text = changed
    return text


def _changed(text: str, steps: Sequence[str | int], value: object) -> str:
    """The text with another value at a place, as far as it goes: whoever asks looks at what it means."""
    node: Node | None = YAML().compose(StringIO(text))
    if node is None:
        return text if value is None else f"{text.rstrip()}\n{_block(steps, value, 0)}\n".lstrip("\n")
    above = key = node
    for depth, step in enumerate(steps):
        entry = _entry(node, step)
        if entry is None:
            return text if value is None else _added(text, key, node, steps[depth:], value)
        above, (key, node) = node, entry
    if value is None:
        return _removed(text, above, key, node)
    return _replaced(text, key, node, value)


def _replaced(text: str, key: Node, node: Node, value: object) -> str:
    start, end = node.start_mark.index, _end(node)
    if start < end:
        return f"{text[:start]}{_flow(value)}{text[end:]}"
    at = text.index(":", key.end_mark.index) + 1  # nothing is there yet
    return f"{text[:at]} {_flow(value)}{text[at:]}"


def _steps(path: str) -> list[str | int]:
    if not _PATH.fullmatch(path):
        raise BadRequest(f"{path!r} is no path such as smgw.address or wallboxes[0].name")
    return [match[1] if match[2] is None else int(match[2]) for match in _STEP.finditer(path)]


def _entry(node: Node, step: str | int) -> tuple[Node, Node] | None:
    """Key and value of a mapping, or a value of a list twice."""
    if isinstance(node, MappingNode) and isinstance(step, str):
        return next(((key, value) for key, value in node.value if key.value == step), None)
    if isinstance(node, SequenceNode) and isinstance(step, int) and step < len(node.value):
        return node.value[step], node.value[step]
    return None


def _added(text: str, key: Node, node: Node, steps: Sequence[str | int], value: object) -> str:
    """The text with a key in a mapping, the one behind ``key``, that does not have it yet."""
    if not isinstance(node, MappingNode):
        return _replaced(text, key, node, _nested(steps, value))
    if node.flow_style:
        at = _entry_end(*node.value[-1]) if node.value else node.start_mark.index + 1
        return f"{text[:at]}{', ' if node.value else ''}{_flow(_nested(steps, value))[1:-1]}{text[at:]}"
    at = _line_end(text, _entry_end(*node.value[-1]))
    return f"{text[:at]}\n{_block(steps, value, node.value[0][0].start_mark.column)}{text[at:]}"


def _removed(text: str, above: Node, key: Node, node: Node) -> str:
    if len(above.value) == 1:
        return f"{text[: above.start_mark.index]}{{}}{text[_end(above) :]}"
    start, end = key.start_mark.index, _entry_end(key, node)
    if isinstance(above, MappingNode) and above.flow_style:
        if tail := re.match(r"\s*,\s*", text[end:]):
            return text[:start] + text[end + tail.end() :]
        return text[:start].rstrip().removesuffix(",") + text[end:]
    begin = text.rfind("\n", 0, start) + 1
    return text[:begin] + text[_line_end(text, end) + 1 :]


def _end(node: Node) -> int:
    """Where a value ends. What the parser says of a block includes the comments behind it."""
    if isinstance(node, MappingNode | SequenceNode) and node.value and not node.flow_style:
        last = node.value[-1]
        return _entry_end(*last) if isinstance(node, MappingNode) else _end(last)
    end = int(node.end_mark.index)
    return end - 1 if isinstance(node, ScalarNode) and node.style in ("|", ">") else end


def _entry_end(key: Node, node: Node) -> int:
    """Where a key with its value ends; nothing, as a value, stands anywhere."""
    return _end(node) if node.start_mark.index < node.end_mark.index else int(key.end_mark.index) + 1


def _line_end(text: str, at: int) -> int:
    """The end of the line, without its line break."""
    end = text.find("\n", at)
    return len(text) if end < 0 else end


def _nested(steps: Sequence[str | int], value: object) -> object:
    for step in reversed(steps):
        value = {step: value}
    return value


def _block(steps: Sequence[str | int], value: object, column: int) -> str:
    """Lines for a key, nested ones below it."""
    lines = [f"{' ' * (column + 2 * depth)}{step}:" for depth, step in enumerate(steps)]
    return "\n".join(lines) + f" {_flow(value)}"


def _flow(value: object) -> str:
    """A value on one line; texts without quotes where they mean the same."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_flow(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_flow, value)) + "]"
    if isinstance(value, str) and _PLAIN.fullmatch(value) and _loaded(value) == value:
        return value
    return json.dumps(value, ensure_ascii=False)


def _loaded(text: str) -> object:
    return YAML(typ="safe").load(text)


def _with(tree: object, steps: Sequence[str | int], value: object) -> object:
    """The tree with another value at a place; what is on the way there is made."""
    if not steps:
        return value
    step, *rest = steps
    if isinstance(step, int):
        entries = list(cast(list[object], tree))
        entries[step] = _with(entries[step], rest, value)
        return entries
    known = cast(dict[object, object], {} if tree is None else tree)
    if not isinstance(known, dict):
        raise TypeError
    if value is None and step not in known:
        return tree
    changed = {**known, step: _with(known.get(step), rest, value)}
    if value is None and not rest:
        del changed[step]
    return changed
