"""What waits for the broker: newest value per topic, bounded by the tree, complete after a connect."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from bridge.core.events import Link, Reconfigured
from bridge.mqtt.outbox import Outbox
from bridge.mqtt.render import render
from tests.core.sites import House, site


def drain(outbox: Outbox, broker: dict[str, str]) -> list[tuple[str, str]]:
    """Let the broker take everything, as a real one keeps it."""
    taken = []
    while message := outbox.take():
        taken.append(message)
        topic, text = message
        if text:
            broker[topic] = text
        else:
            broker.pop(topic, None)
    return taken


def tree_of(house: House) -> dict[str, str]:
    return {f"smgw-bridge/{topic}": text for topic, text in render(house.snapshot).items()}


def without_documents(broker: dict[str, str]) -> dict[str, str]:
    return {topic: text for topic, text in broker.items() if not topic.startswith("homeassistant/")}


def test_newest_value_wins_and_nothing_piles_up() -> None:
    house = House(site(2, meter=True))
    house.happen(Link("M1", True))
    outbox = Outbox("smgw-bridge")
    for watts in range(1000):
        outbox.show(house.read("M1", {"power_w": float(watts)}))
    assert len(outbox) <= len(outbox.wanted)
    assert ("smgw-bridge/meters/M1/power_w", "999") in drain(outbox, {})
    outbox.show(house.read("M1", {"power_w": 999.2}))
    assert outbox.take() is None, "nothing is published that reads the same"


def test_a_fresh_broker_gets_everything_and_online_last() -> None:
    house = House(site())
    outbox = Outbox("smgw-bridge")
    outbox.show(house.snapshot)
    drain(outbox, {})
    outbox.everything()
    broker: dict[str, str] = {}
    assert drain(outbox, broker)[-1] == ("smgw-bridge/status", "online")
    assert without_documents(broker) == tree_of(house) | {"smgw-bridge/status": "online"}


def test_what_a_former_configuration_left_is_swept() -> None:
    house = House(site(1))
    outbox = Outbox("smgw-bridge")
    outbox.show(house.snapshot)
    drain(outbox, {})
    outbox.sweep(["smgw-bridge/wallboxes/E9/power_w", "smgw-bridge/wallboxes/E1/online"])
    assert drain(outbox, {}) == [("smgw-bridge/wallboxes/E9/power_w", "")]


def test_documents_come_with_the_first_reading_and_go_with_the_device() -> None:
    house = House(site(1, meter=True))
    outbox, broker = Outbox("smgw-bridge"), {}
    outbox.show(house.snapshot)
    drain(outbox, broker)
    meter = "homeassistant/device/smgw-bridge/meter_M1/config"
    assert "power_w" not in json.loads(broker[meter])["components"]
    house.happen(Link("M1", True))
    outbox.show(house.read("M1", {"power_w": 5.0}))
    drain(outbox, broker)
    assert "power_w" in json.loads(broker[meter])["components"]
    outbox.show(house.read("M1", {"power_w": 6.0}))
    assert meter not in [topic for topic, _ in drain(outbox, broker)], "a new value is no new document"
    outbox.announce()
    assert meter in [topic for topic, _ in drain(outbox, broker)]
    outbox.show(house.happen(Reconfigured(site(1))))
    drain(outbox, broker)
    assert meter not in broker
    outbox.farewell(remove=False)
    assert drain(outbox, broker) == [("smgw-bridge/status", "offline")]
    outbox.farewell(remove=True)
    drain(outbox, broker)
    assert broker == {}


@given(
    st.lists(
        st.tuples(st.sampled_from(["set", "on", "off", "read", "take", "connect"]), st.integers(0, 9)), max_size=25
    )
)
def test_a_slow_broker_ends_up_with_the_tree(happenings: list[tuple[str, int]]) -> None:
    house = House(site(2))
    outbox, broker = Outbox("smgw-bridge"), {}
    outbox.show(house.snapshot)
    for what, number in happenings:
        if what == "set":
            house.set(AVAIL=float(number), X=float(number), clear=number == 0)
        elif what in ("on", "off"):
            house.happen(Link(f"E{number % 2 + 1}", what == "on"))
        elif what == "read":
            house.read("E1", {"state": "C", "power_w": float(number)})
        elif what == "connect":
            broker.clear()
            outbox.everything()
        else:
            for topic, text in filter(None, (outbox.take() for _ in range(number))):
                broker[topic] = text
        outbox.show(house.snapshot)
    drain(outbox, broker)
    broker = {topic: text for topic, text in without_documents(broker).items() if text}
    broker.pop("smgw-bridge/status", None)
    assert broker == tree_of(house)
