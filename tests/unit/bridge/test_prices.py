"""What requests cost their user, once it is known whom they reach and how long they took."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from msgspec import Raw

from mqtt_im.bridge.prices import REPLACED, Prices
from mqtt_im.bridge.seam import Bridge
from mqtt_im.core import costs
from mqtt_im.core.entries import Entry
from mqtt_im.core.records import Message
from mqtt_im.core.rules import Who
from mqtt_im.protocol import requests as rq
from mqtt_im.store.commits import Commit
from mqtt_im.store.jobs.requests import RequestJob

NAMES = [f"m{number}" for number in range(5_000)]


class Job(RequestJob):
    charged: float = 0.0
    channel: Any = None


@pytest.fixture
def charged() -> list[float]:
    return []


@pytest.fixture
def prices(charged: list[float]) -> Prices:
    transport = SimpleNamespace(charge=lambda _, units: charged.append(units))
    return Prices(cast(Bridge, SimpleNamespace(transport=transport, settings=SimpleNamespace(max_page=100))))


def job(request: rq.Request, seq: int = 2, **extra: Any) -> Job:
    made = Job(Who("ann", "pc", 0), request, lambda _: None)
    if extra:
        commit = Commit(1, Message(0, "#g", seq, "ann", "pc", "1", 0, [1], b"1", extra))
        commit.away = list(NAMES)
        made.commits = [commit]
    return made


def test_what_replaces_the_messages_of_many_costs_several_times(prices: Prices, charged: list[float]) -> None:
    send = rq.Send(id="1", to="#g", body=Raw(b"1"), key="k")
    prices.when_known(job(send, key="k"))
    prices.when_known(job(send, key="k", replaced=[[name, 1] for name in NAMES]))
    assert charged == [costs.of_audience(5_000), costs.of_audience(5_000 + REPLACED * 5_000)]


def test_the_first_message_of_a_conversation_costs_what_beginning_it_takes(prices: Prices, charged: list[float]) -> None:
    send = rq.Send(id="1", to="#g", body=Raw(b"1"))
    prices.when_known(job(send, seq=1, own=1))
    assert charged == [costs.of_audience(5_000) + costs.BEGINNING]


def test_a_refused_request_costs_the_time_that_it_took(prices: Prices, charged: list[float]) -> None:
    react = job(rq.React(id="1", conv="#g", seq=1, emoji="x"))
    react.seconds = 0.0015
    prices.when_known(react)
    assert charged == [pytest.approx(0.0015 / 0.0002 - 4)]


def test_usual_requests_cost_no_more_than_they_say(prices: Prices, charged: list[float]) -> None:
    react = job(rq.React(id="1", conv="ann:bob", seq=1, emoji="x"))
    react.seconds = 0.0005
    prices.when_known(react)
    assert charged == []


def test_nobody_knows_how_many_a_group_reaches_before_it_was_written_to(prices: Prices, charged: list[float]) -> None:
    """So the first messages cost as those to some hundred do, until that is known; what is done else in it tells nothing."""
    send, read = rq.Send(id="1", to="#g", body=Raw(b"1")), rq.Read(conv="#g", seq=1)
    guess = prices.at_the_door(send)[1]
    assert 5 < guess < 50 and prices.at_the_door(rq.Send(id="1", to="bob", body=Raw(b"1")))[1] == 0
    first = job(send, own=1)
    first.charged = guess
    prices.when_known(first)
    reading = job(read)
    reading.charged = guess
    prices.when_known(reading)
    assert charged == [pytest.approx(costs.of_audience(5_000) - guess), pytest.approx(-guess)]
    assert prices.at_the_door(send)[1] == costs.of_audience(5_000)


def test_what_was_refused_has_reached_nobody(prices: Prices, charged: list[float]) -> None:
    send = job(rq.Send(id="1", to="#g", body=Raw(b"1")))
    send.charged = 20.0
    prices.when_known(send)
    assert charged == [-20.0]


def test_what_is_copied_to_many_costs_by_its_bytes_too(prices: Prices, charged: list[float]) -> None:
    """Of those who are connected: a list of 5,000 names to a thousand members is what a thousand larger packets are."""
    send = rq.Send(id="1", to="#g", body=Raw(b"1"))
    told = job(send, own=1)
    assert told.commits is not None
    commit = told.commits[0]
    commit.to, commit.away = [(name, 1) for name in NAMES[:1_000]], NAMES[1_000:]
    commit.entry = Entry("ann", "pc", "#g", 2, b"", b"x" * 65_536, None)
    prices.when_known(told)
    assert charged == [pytest.approx(costs.of_audience(5_000) + 1_000 + 125, rel=0.01)]
    assert prices.at_the_door(send)[1] == pytest.approx(charged[0]), "the next one is paid for before it is done"
