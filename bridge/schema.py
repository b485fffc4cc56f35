"""YAML text to frozen dataclasses; every mistake at once, each with file, line, key and what is allowed.

The dataclass *is* the schema: its field names are the keys, its type hints say what may stand there, its defaults
say what may be left out. Supported hints: ``str int float bool``, :class:`~bridge.core.formulas.Formula`,
``Literal``, dataclasses, ``tuple[X, ...]``, ``Mapping[str, X]``, unions, ``None``, and ``Annotated`` with the rules
of :mod:`bridge.core.allowed`. A ``ValueError`` from ``__post_init__`` becomes a mistake of that mapping.

What no single value can show is for the caller's ``checks``: they see every value that fits as a :class:`Leaf`, also
when others do not, so that all mistakes come at once.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import cache
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from bridge.core.allowed import Allowed
from bridge.core.formulas import Formula, FormulaError, parse
from bridge.errors import ConfigError

T = TypeVar("T")


class Leaf(NamedTuple):
    """A value that was read and fits: its key path (``wallboxes[0].profile``), its line, and what it is.

    The names in a mapping of names are leaves, too: ``variables.AVAIL`` is ``"AVAIL"``.
    """

    path: str
    line: int
    value: object


Checks = Callable[[Sequence[Leaf]], Iterable[tuple[Leaf, str]]]
"""Looks at all leaves and tells what is wrong with which."""


BESIDES: Mapping[str, object] = types.MappingProxyType({"besides": True})
"""``field(metadata=BESIDES)``: the caller fills it in, no file does."""


class _Wrong(Exception):
    """One value is not what it may be; ``allowed`` says what it may."""

    def __init__(self, problem: str, allowed: str) -> None:
        super().__init__(problem)
        self.problem, self.allowed = problem, allowed


def read(
    text: str,
    file: str,
    shape: type[T],
    planned: Mapping[str, str] | None = None,
    checks: Sequence[Checks] = (),
) -> T:
    """Read YAML 1.2 ``text`` into the dataclass ``shape``.

    ``file`` names the source in messages. ``planned`` maps key paths (``smgw``, ``variables.*.ttl_s``) that are
    part of the format but not built yet to a sentence about them. Raises :class:`ConfigError` with every mistake.
    """
    try:
        tree = YAML(typ="rt").load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        problem = (error.problem or error.context or "unreadable").splitlines()[0]
        if problem == "mapping values are not allowed here":  # most likely a ? b : c
            problem += "; a text with ': ' in it, such as a formula, needs quotes"
        raise ConfigError([f"{file}:{line}: no valid YAML: {problem}"]) from error
    except (YAMLError, ValueError) as error:  # ValueError: a date or number that is none, such as 2026-02-31
        raise ConfigError([f"{file}:1: no valid YAML: {str(error).splitlines()[0]}"]) from error
    reader = _Reader(file, planned or {})
    value = reader.mapping(shape, {} if tree is None else tree, "", 1)
    for leaf, problem in (found for check in checks for found in check(reader.leaves)):
        reader.wrong(leaf.line, leaf.path, problem)
    if reader.mistakes:
        raise ConfigError([text for _, text in sorted(reader.mistakes, key=lambda m: m[0])])
    return cast(T, value)


@cache
def keys_of(shape: type) -> Mapping[str, tuple[str, Any, bool]]:
    """Key to (field, type hint, required) of a dataclass. A key that is a word of Python is a field with a ``_``."""
    hints = get_type_hints(shape, include_extras=True)
    return {
        f.name.removesuffix("_"): (
            f.name,
            hints[f.name],
            f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING,
        )
        for f in dataclasses.fields(shape)
        if f.init and not f.metadata.get("besides")
    }


class _Reader:
    """Walks the tree beside the type hints and collects mistakes instead of stopping at the first."""

    def __init__(self, file: str, planned: Mapping[str, str]) -> None:
        self.file = file
        self.planned = planned
        self.mistakes: list[tuple[int, str]] = []
        self.leaves: list[Leaf] = []

    def wrong(self, line: int, path: str, problem: str, allowed: str = "") -> None:
        """Note one mistake."""
        where = f"{self.file}:{line}: " + (f"{path}: " if path else "")
        self.mistakes.append((line, where + problem + (f"; allowed: {allowed}" if allowed else "")))

    def plan_for(self, path: str) -> str | None:
        """The sentence about a key that is not built yet."""
        bare = _without_indices(path)
        return next((plan for pattern, plan in self.planned.items() if fnmatchcase(bare, pattern)), None)

    def mapping(self, shape: type, node: object, path: str, line: int) -> object | None:
        """Read a dataclass; None when it has mistakes."""
        if not isinstance(node, Mapping):
            self.wrong(line, path, f"{_shown(node)} stands where keys are expected", ", ".join(keys_of(shape)))
            return None
        before = len(self.mistakes)
        fields = keys_of(shape)
        values: dict[str, object] = {}
        for key, child in node.items():
            here = f"{path}.{key}" if path else str(key)
            at = _line_of(node, key, line)
            if plan := self.plan_for(here):
                self.wrong(at, here, f"not built yet: {plan}")
            elif key not in fields:
                self.wrong(at, here, "unknown key" + _similar(key, fields), ", ".join(fields))
            else:
                name, hint, _ = fields[key]
                values[name] = self.value(hint, child, here, at)
        for key, (_, _, required) in fields.items():
            if required and key not in node:
                self.wrong(line, f"{path}.{key}" if path else key, "is missing")
        if len(self.mistakes) > before:
            return None
        try:
            return cast(object, shape(**values))
        except ValueError as error:
            self.wrong(line, path, str(error))
            return None

    def value(self, hint: Any, node: object, path: str, line: int) -> object:
        """Read one value of any supported hint; notes a mistake and returns None when it does not fit."""
        before = len(self.mistakes)
        try:
            value = self._value(hint, node, path, line)
        except _Wrong as error:
            self.wrong(line, path, error.problem, error.allowed)
            return None
        if len(self.mistakes) == before:
            self.leaves.append(Leaf(path, line, value))
        return value

    def _value(self, hint: Any, node: object, path: str, line: int) -> object:
        origin, arguments = get_origin(hint), get_args(hint)
        if origin is Annotated:
            return self._annotated(arguments, node, path, line)
        if origin in (Union, types.UnionType):
            return self._union(arguments, node, path, line)
        if origin is Literal:
            # YAML's yes/no/numbers may stand where a word is expected: compare as it was written.
            if node not in arguments or isinstance(node, bool) != isinstance(arguments[0], bool):
                words = (str(word).lower() if isinstance(word, bool) else str(word) for word in arguments)
                raise _Wrong(f"{_shown(node)} is not one of the words", ", ".join(words))
            return node
        if origin is tuple:
            return self._tuple(arguments, node, path, line)
        if origin is not None and issubclass(origin, Mapping):
            if not isinstance(node, Mapping):
                raise _Wrong(f"{_shown(node)} stands where names with values are expected", "name: value")
            return self._names(arguments, node, path, line)
        if dataclasses.is_dataclass(hint) and hint is not Formula:
            return self.mapping(cast(type, hint), node, path, line)
        return _scalar(hint, node)

    def _names(self, arguments: tuple[Any, ...], node: Mapping[object, object], path: str, line: int) -> object:
        values = {}
        for key, child in node.items():
            here, at = f"{path}.{key}", _line_of(node, key, line)
            name = self.value(arguments[0], str(key), here, at)
            values[name] = self.value(arguments[1], child, here, at)
        return values

    def _annotated(self, arguments: tuple[Any, ...], node: object, path: str, line: int) -> object:
        before = len(self.mistakes)
        value = self._value(arguments[0], node, path, line)
        rules: Sequence[Allowed] = arguments[1:]
        for rule in rules:
            if len(self.mistakes) == before and not rule.fits(value):
                raise _Wrong(f"{_shown(node)} does not fit", rule.words)
        return value

    def _tuple(self, arguments: tuple[Any, ...], node: object, path: str, line: int) -> object:
        if not isinstance(node, Sequence) or isinstance(node, str):
            raise _Wrong(f"{_shown(node)} stands where a list is expected", "- one item a line, or [a, b]")
        return tuple(
            self.value(arguments[0], child, f"{path}[{index}]", _line_of(node, index, line))
            for index, child in enumerate(node)
        )

    def _union(self, arguments: tuple[Any, ...], node: object, path: str, line: int) -> object:
        """The first member that fits; when only one could, its own words tell what is wrong."""
        if node is None and types.NoneType in arguments:
            return None
        members = [member for member in arguments if member is not types.NoneType]
        if len(members) == 1:
            return self._value(members[0], node, path, line)
        allowed: list[str] = []
        for member in members:
            trial = _Reader(self.file, self.planned)
            value: object = None
            try:
                value = trial._value(member, node, path, line)
            except _Wrong as error:
                if member is Formula and isinstance(node, str):
                    raise  # says where the formula is wrong
                allowed.append(error.allowed)
                continue
            if not trial.mistakes:
                self.leaves += trial.leaves
                return value
            if isinstance(node, Mapping | Sequence) and not isinstance(node, str):
                self.mistakes += trial.mistakes
                return None
        raise _Wrong(f"{_shown(node)} does not fit", " or ".join(dict.fromkeys(filter(None, allowed))))


def _scalar(hint: Any, node: object) -> object:
    """A plain value, strictly of its kind: ``"5"`` is no number and ``5`` is no text."""
    if hint is Formula:
        return _formula(node)
    if hint is bool and isinstance(node, bool):
        return bool(node)
    if hint is int and isinstance(node, int) and not isinstance(node, bool):
        return int(node)
    if hint is float and isinstance(node, int | float) and not isinstance(node, bool) and math.isfinite(node):
        return float(node)
    if hint is str and isinstance(node, str):
        return str(node)
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
    if hint not in names:
        raise TypeError(f"the schema does not support {hint!r}")
    raise _Wrong(f"{_shown(node)} does not fit", names[hint])


def _formula(node: object) -> Formula:
    if isinstance(node, bool) or not isinstance(node, int | float | str):
        raise _Wrong(f"{_shown(node)} does not fit", "a number or a formula")
    try:
        return parse(str(node) if isinstance(node, str) else node)
    except FormulaError as error:
        # Between braces YAML ends a text at its first comma.
        cut = isinstance(node, str) and node.count("(") > node.count(")")
        hint = "; between { } or [ ] a formula with a comma needs quotes" if cut else ""
        raise _Wrong(f"{_shown(node)} is no formula: {error}{hint}", "a number or a formula") from error


def _line_of(node: object, key: object, fallback: int) -> int:
    """The 1-based line of a key or list item."""
    try:
        position = node.lc.data[key]  # type: ignore[attr-defined]
    except (AttributeError, KeyError, TypeError):
        return fallback
    return int(position[0]) + 1


def _without_indices(path: str) -> str:
    return "".join(part for part in path.replace("]", "[").split("[") if not part.isdigit())


def _similar(key: object, known: Mapping[str, object]) -> str:
    close = difflib.get_close_matches(str(key), known, n=1)
    return f" (did you mean {close[0]}?)" if close else ""


def _shown(node: object) -> str:
    """A value as the writer of the file would recognise it, cut to a readable length."""
    if node is None:
        return "nothing"
    if isinstance(node, Mapping):
        return "a mapping"
    if isinstance(node, Sequence) and not isinstance(node, str):
        return "a list"
    text = str(node).lower() if isinstance(node, bool) else repr(node) if isinstance(node, str) else str(node)
    return text if len(text) <= 60 else text[:57] + "..."
