"""A cache holds no more bytes than it may, and lets go of what came first."""

from __future__ import annotations

from mqtt_im.cache import Cache


def test_what_came_first_leaves_first() -> None:
    cache = Cache[int, str](100)
    for number in range(10):
        cache.put(number, str(number), 30)
        assert cache.bytes <= 100
    assert [number for number in range(10) if cache.get(number) is not None] == [7, 8, 9]
    cache.put(8, "eight", 40)
    assert (cache.get(8), cache.bytes, len(cache)) == ("eight", 100, 3)
    cache.put(11, "x", 1)
    assert [cache.get(number) for number in (7, 8, 9, 11)] == [None, "eight", "9", "x"]


def test_the_newest_has_room_however_large_it_is() -> None:
    cache = Cache[int, str](100)
    cache.put(1, "a", 50)
    cache.put(2, "b", 500)
    assert (cache.get(1), cache.get(2), cache.bytes) == (None, "b", 500)
    cache.put(3, "c", 5)
    assert (cache.get(2), cache.get(3), cache.bytes) == (None, "c", 5)


def test_what_is_dropped_weighs_nothing() -> None:
    cache = Cache[int, str](100)
    cache.put(1, "a", 50)
    cache.drop(1)
    cache.drop(1)
    assert (cache.get(1), cache.bytes, len(cache)) == (None, 0, 0)
    cache.put(2, "b", 60)
    cache.clear()
    assert (cache.get(2), cache.bytes, cache._sizes) == (None, 0, {})
