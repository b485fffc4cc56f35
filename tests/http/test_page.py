"""The home page in a real browser."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest

from bridge.core.events import Link, Read
from tests.http.browser import chromium
from tests.http.conftest import BASIC, Bridge

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed"),
]


def test_the_page_shows_sets_and_says_when_the_bridge_is_gone(bridge: Bridge, tmp_path: Path) -> None:
    watchdog: dict[str, float | str] = {"failsafe_a": 6.0, "failsafe_s": 30.0, "refresh_s": 10.0}
    bridge.happen(
        Link("E1", True),
        Read("E1", {"state": "C", "power_w": 6900.0, "current_l1_a": 10.04, **watchdog}, time.monotonic()),
        Link("M1", False, "no route to host"),
    )
    with chromium(tmp_path / "profile") as browser:
        browser.call("Network.setExtraHTTPHeaders", headers={"Authorization": BASIC})
        browser.call("Page.navigate", url=f"http://127.0.0.1:{bridge.port}/")
        text = "(document.body?.innerText ?? '')"
        browser.wait(f"{text}.includes('Musterweg 1')")
        silent = "6 A after 30 s of silence, fed every 10 s"
        for words in ("55 kW", "6.9 kW", "Charging", "10 · – · – A", "Offline: no route to host", silent):
            assert browser.run(f"{text}.includes({words!r})"), words
        browser.run(
            "document.querySelector('[name=name]').value = 'AVAIL';"
            "document.querySelector('[name=expr]').value = '50';"
            "document.querySelector('form button').click()"
        )
        browser.wait(f"{text}.includes('27.5 kW') && {text}.includes('receipt 1')")
        browser.run(
            "document.querySelector('[name=expr]').value = '1 +'; document.querySelector('form button').click()"
        )
        browser.wait("document.querySelector('output').dataset.tone === 'bad'")
        refused = [text for text in browser.complaints if "400 (Bad Request)" not in text]
        assert refused == []
        bridge.happen(Link("E1", True), Read("E1", {"state": "<img src=x onerror=alert(1)>"}, time.monotonic()))
        browser.wait(f"{text}.includes('State unknown')")
        bridge.edge.stop()
        browser.wait("!document.querySelector('#lost').hidden")
        assert "Connection to the bridge lost" in str(browser.run(text))
        bridge.edge.stop = lambda: None  # type: ignore[method-assign]
