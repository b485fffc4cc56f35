"""When to say that a certificate runs out."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from bridge.core.events import Certificates, Reconfigured
from bridge.core.gateway import SmgwConfig
from bridge.core.records.certificates import DAY_S, expiry_warning
from tests.core.sites import House, site


@pytest.mark.parametrize(
    ("days", "expected"),
    [
        (400, None),
        (90.001, None),
        (90, "expires within 90 days, on 2027-01-31"),
        (30.001, "expires within 90 days, on 2027-01-31"),
        (30, "expires within 30 days, on 2027-01-31"),
        (7, "expires within 7 days, on 2027-01-31"),
        (0, "expires within 7 days, on 2027-01-31"),
        (-0.001, "expired on 2027-01-31"),
        (-1000, "expired on 2027-01-31"),
    ],
)
def test_warnings_come_in_steps(days: float, expected: str | None) -> None:
    end = datetime(2027, 1, 31, 12, tzinfo=UTC).timestamp()
    assert expiry_warning(end, end - days * DAY_S) == expected


def test_only_those_in_use_raise_an_alarm_as_time_passes() -> None:
    smgw = SmgwConfig(certificate="cls", gateway_certificate="gateway")
    house = House(replace(site(), smgw=smgw))
    end = house.utc + 31 * DAY_S
    house.happen(Certificates({"cls": end, "gateway": end + 1000 * DAY_S, "old": house.utc - DAY_S}))
    day = f"{datetime.fromtimestamp(end, UTC):%Y-%m-%d}"

    def said() -> str | None:
        alarms = house.snapshot.decision.alarms
        assert not alarms.keys() & {"certificate_gateway", "certificate_old"}
        return alarms.get("certificate_cls")

    assert said() == f"the certificate cls (smgw.certificate) expires within 90 days, on {day}"
    house.wait(2 * DAY_S)
    assert said() == f"the certificate cls (smgw.certificate) expires within 30 days, on {day}"
    house.wait(30 * DAY_S)
    assert said() == f"the certificate cls (smgw.certificate) expired on {day}"
    house.happen(Certificates({"cls": house.utc + 1000 * DAY_S}))
    assert said() is None
    house.happen(Certificates({"cls": house.utc}), Reconfigured(site()))
    assert said() is None
