"""What requests cost."""

from __future__ import annotations

import pytest
from msgspec import Raw

from mqtt_im.core import costs
from mqtt_im.protocol import requests as rq


@pytest.mark.parametrize(
    ("request_", "units"),
    [
        (rq.Send(to="bob", body=Raw(b'"hi"')), pytest.approx(1, abs=0.01)),
        (rq.Send(to="bob", body=Raw(b"x" * 65_536)), 9),
        (rq.Edit(id="1", conv="a:b", seq=1, body=Raw(b"x" * 8192)), 2),
        (rq.Report(id="1", conv="a:b", seq=1, state="executed", result=Raw(b"x" * 8192)), 2),
        (rq.Send(to="bob", body=Raw(b"[" + b"[]," * 5_000 + b"1]")), pytest.approx(1 + 15_003 / 8192 + 5_001 / 250)),
        (rq.GroupCreate(id="1", members=["bob"] * 5_000), 501),
        (rq.Search(query="x"), costs.SEARCH),
        (rq.History(conv="a:b"), 26),
        (rq.History(conv="a:b", limit=20), 2),
        (rq.Hello(), 2),
        (rq.Read(conv="a:b", seq=1), 1),
    ],
)
def test_a_request_costs_by_what_it_asks_for(request_: rq.Request, units: float) -> None:
    assert costs.at_the_door(request_, page=500) == units


def test_a_page_costs_by_what_it_has() -> None:
    assert costs.of_page({"items": []}) == 1
    assert costs.of_page({"items": [Raw(b"x" * 8192)] * 10}) == 12
    assert costs.of_page({"members": [{"user": "bob"}] * 500}) == 51
    assert costs.of_page(None) == 1
    assert costs.of_page({"items": []}, 0.0008) == 1, "as long as a page may take"
    assert costs.of_page({"items": []}, 1.0) == pytest.approx(1 + 5000 - 4), "what it took beyond that is paid for"


def test_telling_many_costs_by_their_number() -> None:
    assert costs.of_audience(2) == costs.of_audience(1) == 0
    assert costs.of_audience(5_002) == 250


def test_subscriptions_cost_by_their_filters() -> None:
    assert costs.of_subscriptions(2, 0, 0) == 1.5
    assert costs.of_subscriptions(500, 500, 0) > 1_000
    assert costs.of_subscriptions(1, 0, 1_000) > 50


def test_nonsense_costs_by_its_size() -> None:
    assert costs.of_nonsense(10) < 0.01
    assert costs.of_nonsense(262_144) > 100


def test_a_payload_costs_by_what_is_in_it_and_by_the_time_that_reading_it_took() -> None:
    assert costs.of_payload(100, 0.0, True) == costs.of_payload(costs.BODY_BYTES, 0.0, True) == 0
    assert costs.of_payload(10 * costs.BODY_BYTES, 0.0, True) == 10
    assert costs.of_payload(10 * costs.BODY_BYTES, 0.0, False) == costs.of_nonsense(10 * costs.BODY_BYTES) == 40
    assert costs.of_payload(100, 0.01, True) == costs.of_more_time(0.01, 1)
    assert costs.of_payload(10 * costs.BODY_BYTES, 0.01, True) == 10 + costs.of_more_time(0.01, 11)


def test_a_search_costs_by_its_time() -> None:
    assert costs.of_time(0) == 0
    assert costs.of_time(0.02) == pytest.approx(100)
