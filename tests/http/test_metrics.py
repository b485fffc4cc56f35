"""The text is checked against the grammar of the exposition format, written down here once more, strictly."""

from __future__ import annotations

import re

from bridge.core import step
from bridge.core.model import Now, State
from bridge.http import metrics
from tests.http.conftest import site

NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
LABEL = r'[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\["\\n])*"'
NUMBER = r"(?:[+-]Inf|NaN|-?\d+(?:\.\d+)?(?:e[+-]\d+)?)"
SAMPLE = re.compile(rf"({NAME})(?:\{{({LABEL}(?:,{LABEL})*)\}})? ({NUMBER})")


def parsed(text: str) -> dict[str, float]:
    """Sample with labels to value; fails when the text is no exposition: every sample under its own HELP and TYPE."""
    assert text.endswith("\n")
    found: dict[str, float] = {}
    families: set[str] = set()
    family = None
    lines = iter(text.splitlines())
    for line in lines:
        if line.startswith("# HELP "):
            family, _, about = line.removeprefix("# HELP ").partition(" ")
            assert re.fullmatch(NAME, family)
            assert family not in families, f"{family} twice"
            assert about
            families.add(family)
            assert re.fullmatch(rf"# TYPE {family} (counter|gauge)", next(lines))
            continue
        match = SAMPLE.fullmatch(line)
        assert match, line
        assert match[1] == family, f"{line} stands under {family}"
        key = line.rpartition(" ")[0]
        assert key not in found
        found[key] = float(match[3].replace("Inf", "inf").replace("NaN", "nan"))
    return found


def test_the_format_holds_with_hostile_labels_and_values() -> None:
    nasty = [
        ("links_total", {"peer": 'a"b\\c\nd'}, 3.0),
        ("age_s", {}, float("inf")),
        ("age_s", {"of": "x"}, 1e-9),
        ("links_total", {"peer": "z"}, 1e300),
    ]
    found = parsed(metrics.render(step.first(site(), State(), Now(1000.0, 1.7e9)), [lambda: nasty]))
    assert found[r'smgw_bridge_links_total{peer="a\"b\\c\nd"}'] == 3.0
    assert found["smgw_bridge_age_s"] == float("inf")
    assert found["smgw_bridge_grid_limit_w"] == 55000.0
    assert found['smgw_bridge_grid_source{source="config"}'] == 1.0
    assert found['smgw_bridge_variable{name="AVAIL"}'] == 100.0
    assert found['smgw_bridge_device_online{id="E1"}'] == 0.0


def test_every_sample_of_the_bridge_has_a_help_text() -> None:
    text = metrics.render(step.first(site(), State(), Now(1000.0, 1.7e9)))
    for line in text.splitlines():
        if line.startswith("# TYPE"):
            assert line.split()[2].removeprefix(metrics.PREFIX) in metrics.HELP
