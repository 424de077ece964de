"""What is no address of a server is named as such."""

from __future__ import annotations

import pytest

from mqtt_im.client.network.addresses import parsed


@pytest.mark.parametrize(
    "url",
    [
        "mqtt://h:99999",
        "mqtt://h:x",
        "mqtt://h:-1",
        "mqtt://h:0",
        "mqtt://[::1",
        "mqtt://",
        "mqtt://:1883",
        "http://h",
        "h:1883",
        "",
        "mqtt://alice:secret@h",
    ],
)
def test_a_wrong_one_is_told(url: str) -> None:
    with pytest.raises(ValueError, match="address") as wrong:
        parsed(url)
    assert "secret" not in str(wrong.value)


def test_right_ones() -> None:
    told = [str(address) for address in parsed(["mqtt://h", "mqtts://h:1", "ws://h", "wss://[::1]/x?y"])]
    assert told == ["mqtt://h:1883", "mqtts://h:1", "ws://h:80/mqtt", "wss://[::1]:443/x?y"]
