"""The house's rules, read from the imports: no arrow runs the wrong way, no file grows out of hand."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = {
    ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file
    for file in sorted((ROOT / "bridge").rglob("*.py"))
}

EDGES = {"http", "mqtt", "modbus", "gpio", "ocpp", "smgw", "storage", "simulator"}
SHARED = {"", "hub", "edge", "config", "schema", "errors"}
"""Top-level modules below the edges; "" is the package itself, which holds the version."""

MAY_IMPORT: dict[str, set[str]] = {
    "__main__": {"commands", "app", "core"} | EDGES | SHARED,
    "commands": {"app", "core"} | EDGES | SHARED,
    "app": {"core", "parts"} | EDGES | SHARED,
    "parts": {"core", "hub", "edge", "errors"},
    **{edge: {edge, "core"} | SHARED for edge in EDGES},
    "hub": {"core", "edge"},
    "edge": {"core"},
    "config": {"core", "schema", "errors"},
    "schema": {"core", "errors"},
    "errors": set(),
    "core": {"core"},
    "": set(),
}
"""Room to the rooms it may know."""

FLOORS = ("loads", "rules", "grid", "records")
"""The rooms inside the core: each may know those before it."""

DEMO_ONLY = {"commands"}
"""Outside the simulator itself, only these may know it."""

PURE = {
    *(
        "__future__",
        "ast",
        "builtins",
        "collections",
        "copy",
        "dataclasses",
        "datetime",
        "enum",
        "functools",
        "heapq",
        "inspect",
        "ipaddress",
    ),
    *("itertools", "math", "operator", "re", "simpleeval", "types", "typing", "zoneinfo"),
}
"""What the core may use of the world: nothing that does IO, looks at a clock, waits, or is random."""

VAGUE = {"utils", "util", "helpers", "helper", "manager", "common", "misc"}
MAX_LINES = 400


@cache
def imports(module: str) -> frozenset[str]:
    """Every module that a module imports, anywhere in its text, as dotted names."""
    return frozenset(_imports(module))


def _imports(module: str) -> Iterator[str]:
    package = module if MODULES[module].name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, base]).rstrip(".")
            for name in node.names:
                inner = f"{base}.{name.name}"
                yield inner if inner in MODULES else base


def own(module: str) -> set[str]:
    return {name for name in imports(module) if name in MODULES and name != module}


def room(module: str) -> str:
    return module.partition(".")[2].partition(".")[0]


@pytest.mark.parametrize("module", MODULES)
def test_no_arrow_runs_the_wrong_way(module: str) -> None:
    assert room(module) in MAY_IMPORT, f"{module} stands in no known room: give it a place in MAY_IMPORT"
    wrong = {name for name in own(module) if room(name) not in MAY_IMPORT[room(module)]}
    if room(module) not in DEMO_ONLY | {"simulator"}:
        wrong |= {name for name in own(module) if room(name) == "simulator"}
    assert not wrong, f"{module} may not import {', '.join(sorted(wrong))}"


@pytest.mark.parametrize("module", [module for module in MODULES if room(module) == "core"])
def test_the_core_is_pure(module: str) -> None:
    others = {name.partition(".")[0] for name in imports(module)} - {"bridge"}
    assert others <= PURE, f"{module} imports {', '.join(sorted(others - PURE))}"


@pytest.mark.parametrize("floor", FLOORS)
def test_no_stair_inside_the_core_leads_upwards(floor: str) -> None:
    above = tuple(f"bridge.core.{higher}." for higher in FLOORS[FLOORS.index(floor) + 1 :])
    modules = [module for module in MODULES if module.startswith(f"bridge.core.{floor}.")]
    assert modules
    assert not [(module, name) for module in modules for name in own(module) if name.startswith(above)]


def test_the_list_of_pure_modules_is_one() -> None:
    assert PURE - {"simpleeval", "__future__"} <= sys.stdlib_module_names
    assert not PURE & {"time", "random", "os", "io", "threading", "asyncio", "socket", "logging", "pathlib"}


def test_no_import_runs_in_a_circle() -> None:
    finished: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join((*path[path.index(module) :], module))
        if module not in finished:
            for name in sorted(own(module)):
                visit(name, (*path, module))
            finished.add(module)

    for module in MODULES:
        visit(module, ())


@pytest.mark.parametrize("module", MODULES)
def test_files_stay_readable(module: str) -> None:
    lines = len(MODULES[module].read_text(encoding="utf-8").splitlines())
    assert lines <= MAX_LINES, f"{module} has {lines} lines: split it along what changes together"
    assert not VAGUE & set(module.split(".")), f"{module}: a name that says what is in it, please"


def test_every_module_says_what_it_is() -> None:
    silent = [name for name, file in MODULES.items() if not ast.get_docstring(ast.parse(file.read_text()))]
    assert not silent
